/** Filters of lists and dicts. */
import { needInt } from '../arguments.ts';
import type { Budget } from '../budget.ts';
import { compare, isEqual } from '../compare.ts';
import { Dict } from '../dict.ts';
import { TemplateError } from '../errors.ts';
import { Group, Iter, itemsOf, iterate, length, pair, Range, View } from '../iterables.ts';
import { runBinary } from '../operators.ts';
import { toText } from '../text.ts';
import { isTrue, Markup, type Tuple, textOf, typeName, type Value } from '../values.ts';
import { type Filter, filter } from './filter.ts';
import { fold, pathOf, pathsOf } from './paths.ts';

function sorted(list: readonly Value[], key: (item: Value) => Value, reverse: Value, budget: Budget): Value[] {
  budget.step(list.length * 20);
  const direction = isTrue(reverse) ? -1 : 1;
  const keyed = list.map((item) => [key(item), item] as const);
  if (keyed.length > 1) compare(keyed[0]?.[0], keyed[1]?.[0]);
  return keyed.sort(([a], [b]) => direction * compare(a, b)).map(([, item]) => item);
}

function dictSort(value: Value, [caseSensitive, by, reverse]: readonly Value[], budget: Budget): Value {
  if (by !== 'key' && by !== 'value') throw new TemplateError('dictsort sorts by "key" or "value"');
  if (!(value instanceof Dict)) throw new TemplateError(`dictsort needs a mapping, not ${typeName(value)}`);
  const pairs = Array.from(value.entries(), ([key, item]) => pair(key, item));
  return sorted(pairs, (one) => fold((one as Tuple)[by === 'value' ? 1 : 0], caseSensitive), reverse, budget);
}

function* unique(value: Value, [caseSensitive, attribute]: readonly Value[], budget: Budget): Generator<Value, void, undefined> {
  const seen = new Dict();
  for (const item of iterate(value)) {
    budget.step();
    const key = fold(pathOf(item, attribute, budget), caseSensitive);
    if (seen.has(key)) continue;
    seen.set(key, true);
    yield item;
  }
}

function extreme(direction: 1 | -1): Filter {
  const run = (value: Value, [caseSensitive, attribute]: readonly Value[], budget: Budget) => {
    const key = (item: Value) => fold(pathOf(item, attribute, budget), caseSensitive);
    const list = itemsOf(value, budget);
    let best = list[0];
    for (const item of list.slice(1)) if (direction * compare(key(item), key(best)) > 0) best = item;
    return best;
  };
  return filter(run, [], { case_sensitive: false, attribute: null });
}

function sum(value: Value, [attribute, start]: readonly Value[], budget: Budget): Value {
  if (textOf(start) !== undefined) throw new TemplateError("sum() can't sum strings");
  let total = start;
  for (const item of iterate(value)) {
    budget.step();
    total = runBinary('+', total, pathOf(item, attribute, budget), budget);
  }
  return total;
}

function join(value: Value, [separator, attribute]: readonly Value[], budget: Budget): string {
  const mark = toText(separator, budget);
  const parts = itemsOf(value, budget).map((item) => toText(pathOf(item, attribute, budget), budget));
  budget.reserve(parts.length * mark.length);
  return budget.take(parts.join(mark));
}

function reverse(value: Value, budget: Budget): Value {
  const text = textOf(value);
  if (text !== undefined)
    return value instanceof Markup ? new Markup(Array.from(text).reverse().join('')) : Array.from(text).reverse().join('');
  const list = itemsOf(value, budget).reverse();
  return value instanceof Iter ? list : new Iter(list, 'reverse_iterator');
}

function last(value: Value, budget: Budget): Value {
  const isReversible =
    textOf(value) !== undefined || Array.isArray(value) || value instanceof Dict || value instanceof Range || value instanceof View;
  if (!isReversible && value !== undefined) throw new TemplateError(`'${typeName(value)}' object is not reversible`);
  const item = itemsOf(value, budget).at(-1);
  return value instanceof Markup && typeof item === 'string' ? new Markup(item) : item;
}

function first(value: Value): Value {
  for (const item of iterate(value)) return item;
  return undefined;
}

function group(value: Value, [attribute, otherwise, caseSensitive]: readonly Value[], budget: Budget): Value {
  const real = (item: Value) => pathOf(item, attribute, budget, otherwise);
  const key = (item: Value) => fold(real(item), caseSensitive);
  const groups: [key: Value, items: Value[]][] = [];
  for (const item of sorted(itemsOf(value, budget), key, false, budget)) {
    const newest = groups.at(-1);
    if (newest !== undefined && isEqual(newest[0], key(item))) newest[1].push(item);
    else groups.push([key(item), [item]]);
  }
  return groups.map(([folded, items]) => Group.of(isTrue(caseSensitive) ? folded : real(items[0]), items) as Group);
}

function* batch(value: Value, [size, fill]: readonly Value[], budget: Budget): Generator<Value, void, undefined> {
  let row: Value[] = [];
  for (const item of iterate(value)) {
    budget.step();
    if (isEqual(row.length, size)) {
      yield row;
      row = [];
    }
    row.push(item);
  }
  if (row.length === 0) return;
  if (fill !== null && fill !== undefined) {
    const numMissing = Math.max(0, needInt(size, 'linecount') - row.length);
    budget.step(numMissing);
    for (let i = 0; i < numMissing; i++) row.push(fill);
  }
  yield row;
}

function* slice(value: Value, [slices, fill]: readonly Value[], budget: Budget): Generator<Value, void, undefined> {
  const list = itemsOf(value, budget);
  const count = needInt(slices, 'slices');
  if (count === 0) throw new TemplateError('slice into 0 parts');
  const size = Math.floor(list.length / count);
  const numLarger = list.length - size * count;
  let start = 0;
  for (let i = 0; i < count; i++) {
    budget.step();
    const end = start + size + (i < numLarger ? 1 : 0);
    const part = list.slice(start, end);
    if (fill !== null && i >= numLarger) part.push(fill);
    yield part;
    start = end;
  }
}

function* pairs(value: Value): Generator<Value, void, undefined> {
  if (value === undefined) return;
  if (!(value instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.');
  for (const [key, item] of value.entries()) yield pair(key, item);
}

const lazily =
  (run: (value: Value, args: readonly Value[], budget: Budget) => Iterable<Value>) =>
  (value: Value, args: readonly Value[], budget: Budget) =>
    new Iter(run(value, args, budget));

export const listFilters: Readonly<Record<string, Filter>> = {
  batch: filter(lazily(batch), ['linecount'], { fill_with: null }),
  count: filter(length),
  dictsort: filter(dictSort, [], { case_sensitive: false, by: 'key', reverse: false }),
  first: filter(first),
  groupby: filter(group, ['attribute'], { default: null, case_sensitive: false }),
  items: filter(lazily(pairs)),
  join: filter(join, [], { d: '', attribute: null }),
  last: filter((value, _, budget) => last(value, budget)),
  length: filter(length),
  list: filter((value, _, budget) => itemsOf(value, budget)),
  max: extreme(1),
  min: extreme(-1),
  random: filter(() => {
    throw new TemplateError('random is not supported: a prompt is the same in every run');
  }),
  reverse: filter((value, _, budget) => reverse(value, budget)),
  slice: filter(lazily(slice), ['slices'], { fill_with: null }),
  sort: filter(
    (value, [reversed, caseSensitive, attribute], budget) =>
      sorted(itemsOf(value, budget), (item) => pathsOf(item, attribute, caseSensitive, budget), reversed, budget),
    [],
    { reverse: false, case_sensitive: false, attribute: null },
  ),
  sum: filter(sum, [], { attribute: null, start: 0 }),
  unique: filter(lazily(unique), [], { case_sensitive: false, attribute: null }),
};
