/** Jinja's filters by their names. */
import { absent, bindExactly } from './arguments.ts';
import { findAttribute } from './attributes.ts';
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { type Filter, filter } from './filters/filter.ts';
import { listFilters } from './filters/list-filters.ts';
import { formatFilter, numberFilters } from './filters/number-filters.ts';
import { pathOf } from './filters/paths.ts';
import { textFilters } from './filters/text-filters.ts';
import { urlize } from './filters/urlize.ts';
import { Iter, iterate } from './iterables.ts';
import { json } from './json.ts';
import { runTest } from './tests.ts';
import { toText } from './text.ts';
import { type Arguments, isTrue, type Value } from './values.ts';

const orElse = filter(
  (value, [otherwise, isBoolean]) => (value === undefined || (isTrue(isBoolean) && !isTrue(value)) ? otherwise : value),
  [],
  { default_value: '', boolean: false },
);

const filters: ReadonlyMap<string, Filter> = new Map(
  Object.entries<Filter>({
    ...textFilters,
    ...listFilters,
    ...numberFilters,
    attr: filter((value, [name], budget) => findAttribute(value, toText(name, budget), budget), ['name']),
    d: orElse,
    default: orElse,
    tojson: filter(json, [], { ensure_ascii: false, indent: null, separators: null, sort_keys: false }),
    urlize,
  }),
);

/** Filters that take arguments for the filter or test that they apply. */
const wholeArguments: ReadonlyMap<string, (value: Value, args: Arguments, budget: Budget) => Value> = new Map([
  ['format', formatFilter],
  ['map', (value, args, budget) => new Iter(mapEach(value, args, budget))],
  ...['select', 'reject', 'selectattr', 'rejectattr'].map(
    (name) => [name, (value: Value, args: Arguments, budget: Budget) => new Iter(selectEach(name, value, args, budget))] as const,
  ),
]);

export const filterNames: ReadonlySet<string> = new Set([...filters.keys(), ...wholeArguments.keys()].sort());

function* mapEach(value: Value, { positional, keywords }: Arguments, budget: Budget): Generator<Value, void, undefined> {
  if (!isTrue(value)) return;
  const [name, ...rest] = positional;
  const given = new Map(keywords);
  const byAttribute = positional.length === 0 && given.has('attribute');
  const [attribute, otherwise = null] = [given.get('attribute'), given.get('default')];
  if (byAttribute) {
    given.delete('attribute');
    given.delete('default');
    const [unknown] = given.keys();
    if (unknown !== undefined) throw new TemplateError(`map got an unexpected keyword argument '${unknown}'`);
  } else if (positional.length === 0) {
    throw new TemplateError('map requires a filter argument');
  }
  for (const item of iterate(value)) {
    budget.step();
    if (byAttribute) yield pathOf(item, attribute, budget, otherwise);
    else yield runFilter(toText(name, budget), item, { positional: rest, keywords }, budget);
  }
}

function* selectEach(
  filterName: string,
  value: Value,
  { positional, keywords }: Arguments,
  budget: Budget,
): Generator<Value, void, undefined> {
  if (!isTrue(value)) return;
  const byAttribute = filterName.endsWith('attr');
  const [attribute, ...others] = byAttribute ? positional : [null, ...positional];
  if (byAttribute && positional.length === 0) throw new TemplateError(`${filterName} needs the name of an attribute`);
  const [testName, ...rest] = others;
  const wanted = filterName.startsWith('select');
  for (const item of iterate(value)) {
    budget.step();
    const tested = pathOf(item, attribute, budget);
    const holds =
      others.length === 0 ? isTrue(tested) : isTrue(runTest(toText(testName, budget), tested, { positional: rest, keywords }, budget));
    if (holds === wanted) yield item;
  }
}

/** @throws TemplateError for an unknown filter, or a value that it cannot take. */
export function runFilter(name: string, value: Value, args: Arguments, budget: Budget): Value {
  budget.step();
  const whole = wholeArguments.get(name);
  if (whole !== undefined) return whole(value, args, budget);
  const entry = filters.get(name);
  if (entry === undefined) throw unknownFilter(name);
  const { parameters, defaults, run } = entry;
  const numNeeded = parameters.length - defaults.length;
  const bound = bindExactly(name, parameters, numNeeded, args).map((one, i) => (one === absent ? defaults[i - numNeeded] : one));
  const result = run(value, bound, budget);
  return typeof result === 'string' ? budget.take(result) : result;
}

export function unknownFilter(name: string): TemplateError {
  return new TemplateError(`no filter named '${name}' (there are ${[...filterNames].join(', ')})`);
}
