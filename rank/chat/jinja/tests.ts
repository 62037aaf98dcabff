/** Jinja's tests, which follow `is` and which `select` and its kin take by name. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { Callable, compare, Float, isEqual, iterate, Namespace, toNumber, toText, typeName, type Value } from './values.ts';

type Test = (value: Value, argument: Value, budget: Budget) => boolean;

const order =
  (operator: string, holds: (difference: number) => boolean): Test =>
  (value, argument) =>
    holds(compare(value, argument, operator));

const isLower: Test = (value, _, budget) => {
  const text = toText(value, budget);
  return text === text.toLowerCase() && text !== text.toUpperCase();
};
const isUpper: Test = (value, _, budget) => {
  const text = toText(value, budget);
  return text === text.toUpperCase() && text !== text.toLowerCase();
};
const greater = order('>', (difference) => difference > 0);
const less = order('<', (difference) => difference < 0);
const atLeast = order('>=', (difference) => difference >= 0);
const atMost = order('<=', (difference) => difference <= 0);
const unequal: Test = (value, argument) => !isEqual(value, argument);

const tests: ReadonlyMap<string, Test> = new Map(
  Object.entries<Test>({
    defined: (value) => value !== undefined,
    undefined: (value) => value === undefined,
    none: (value) => value === null,
    boolean: (value) => typeof value === 'boolean',
    true: (value) => value === true,
    false: (value) => value === false,
    string: (value) => typeof value === 'string',
    number: (value) => toNumber(value) !== undefined,
    integer: (value) => typeof value === 'number',
    float: (value) => value instanceof Float,
    mapping: (value) => value instanceof Map,
    sequence: (value) => value === undefined || typeof value === 'string' || Array.isArray(value) || value instanceof Map,
    iterable: (value) => value === undefined || typeof value === 'string' || Array.isArray(value) || value instanceof Map,
    callable: (value) => value instanceof Callable,
    odd: (value) => Math.abs(integer(value)) % 2 === 1,
    even: (value) => integer(value) % 2 === 0,
    divisibleby: (value, argument) => integer(value) % integer(argument) === 0,
    lower: isLower,
    upper: isUpper,
    in: (value, argument, budget) => contains(argument, value, budget),
    sameas: (value, argument) => value === argument,
    eq: isEqual,
    equalto: isEqual,
    '==': isEqual,
    ne: unequal,
    '!=': unequal,
    gt: greater,
    greaterthan: greater,
    '>': greater,
    ge: atLeast,
    '>=': atLeast,
    lt: less,
    lessthan: less,
    '<': less,
    le: atMost,
    '<=': atMost,
  }),
);

function integer(value: Value): number {
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`expected an integer, not ${typeName(value)}`);
  return number;
}

/** Whether `item in container`. */
export function contains(container: Value, item: Value, budget: Budget): boolean {
  if (typeof container === 'string') {
    if (typeof item !== 'string') throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    budget.step(1 + (container.length >> 6));
    return container.includes(item);
  }
  if (container instanceof Map) return container.has(item);
  if (container instanceof Namespace) throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`);
  const items = iterate(container);
  budget.step(items.length);
  return items.some((other) => isEqual(other, item));
}

/** @throws TemplateError for an unknown test, or a value that it cannot take. */
export function runTest(name: string, value: Value, argument: Value, budget: Budget): boolean {
  const test = tests.get(name);
  if (test === undefined) throw new TemplateError(`no test named '${name}' (there are ${[...tests.keys()].join(', ')})`, 'template');
  return test(value, argument, budget);
}
