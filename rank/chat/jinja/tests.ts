/** Jinja's tests, which follow `is` and which `select` and its kin take by name. */
import { bind } from './arguments.ts';
import type { Budget } from './budget.ts';
import { compare, contains, isEqual } from './compare.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { filterNames } from './filters.ts';
import { isSequence } from './iterables.ts';
import { isLower, isUpper } from './letters.ts';
import { runBinary } from './operators.ts';
import { toText } from './text.ts';
import { type Arguments, Callable, Float, Instance, Markup, textOf, toNumber, type Value } from './values.ts';

type TestRun = (value: Value, argument: Value, budget: Budget) => boolean;

interface Test {
  /** The parameter after the value, if there is one; '' for one that cannot be named. */
  readonly parameters: readonly string[];
  readonly run: TestRun;
}

const plain = (run: (value: Value, budget: Budget) => boolean): Test => ({ parameters: [], run: (value, _, budget) => run(value, budget) });
const withArgument = (run: TestRun, parameter = ''): Test => ({ parameters: [parameter], run });
const order = (operator: string, holds: (difference: number) => boolean): Test =>
  withArgument((value, argument) => holds(compare(value, argument, operator)));

const equal = withArgument(isEqual);
const unequal = withArgument((value, argument) => !isEqual(value, argument));
const greater = order('>', (difference) => difference > 0);
const less = order('<', (difference) => difference < 0);
const atLeast = order('>=', (difference) => difference >= 0);
const atMost = order('<=', (difference) => difference <= 0);
/** Python formats a text here too, whose result equals no number. */
const leaves = (rest: number, divisor: Value) => (value: Value, budget: Budget) => isEqual(runBinary('%', value, divisor, budget), rest);

function isIterable(value: Value): boolean {
  if (value instanceof Instance) return value.iterate() !== null;
  return value === undefined || textOf(value) !== undefined || Array.isArray(value) || value instanceof Dict;
}

const tests: ReadonlyMap<string, Test> = new Map(
  Object.entries<Test>({
    defined: plain((value) => value !== undefined),
    undefined: plain((value) => value === undefined),
    none: plain((value) => value === null),
    boolean: plain((value) => typeof value === 'boolean'),
    true: plain((value) => value === true),
    false: plain((value) => value === false),
    string: plain((value) => textOf(value) !== undefined),
    number: plain((value) => toNumber(value) !== undefined),
    integer: plain((value) => typeof value === 'number'),
    float: plain((value) => value instanceof Float),
    mapping: plain((value) => value instanceof Dict),
    sequence: plain(isSequence),
    iterable: plain(isIterable),
    callable: plain((value) => value instanceof Callable || value === undefined),
    escaped: plain((value) => value instanceof Markup),
    odd: plain(leaves(1, 2)),
    even: plain(leaves(0, 2)),
    divisibleby: withArgument((value, divisor, budget) => leaves(0, divisor)(value, budget), 'num'),
    lower: plain((value, budget) => isLower(toText(value, budget))),
    upper: plain((value, budget) => isUpper(toText(value, budget))),
    filter: plain((value) => filterNames.has(String(textOf(value)))),
    test: plain((value) => testNames.has(String(textOf(value)))),
    in: withArgument((value, container, budget) => contains(container, value, budget), 'seq'),
    sameas: withArgument((value, other) => value === other, 'other'),
    ...{ eq: equal, equalto: equal, '==': equal, ne: unequal, '!=': unequal },
    ...{ gt: greater, greaterthan: greater, '>': greater, ge: atLeast, '>=': atLeast },
    ...{ lt: less, lessthan: less, '<': less, le: atMost, '<=': atMost },
  }),
);

export const testNames: ReadonlySet<string> = new Set(tests.keys());

/** @throws TemplateError for an unknown test, or a value that it cannot take. */
export function runTest(name: string, value: Value, args: Arguments, budget: Budget): boolean {
  const test = tests.get(name);
  if (test === undefined) throw unknownTest(name);
  const [argument] = bind(name, test.parameters, test.parameters.length, args);
  return test.run(value, argument, budget);
}

export function unknownTest(name: string): TemplateError {
  return new TemplateError(`no test named '${name}' (there are ${[...testNames].join(', ')})`);
}
