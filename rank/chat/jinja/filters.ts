/** The Jinja filters that chat templates use. */
import { getAttribute, getItem } from './attributes.ts';
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { toJson } from './json.ts';
import { runTest } from './tests.ts';
import { bind, capitalize, optionalInteger, replace, splitLines, strip } from './text-methods.ts';
import {
  type Arguments,
  characters,
  compare,
  Float,
  isEqual,
  isTrue,
  iterate,
  Tuple,
  toNumber,
  toText,
  typeName,
  type Value,
} from './values.ts';

type FilterRun = (value: Value, args: readonly Value[], budget: Budget) => Value;

interface Filter {
  readonly parameters: readonly string[];
  readonly numNeeded: number;
  readonly run: FilterRun;
}

function filter(parameters: readonly string[], run: FilterRun, numNeeded = 0): Filter {
  return { parameters, numNeeded, run };
}

function textFilter(run: (text: string) => string): Filter {
  return filter([], (value, _, budget) => run(toText(value, budget)));
}

function length(value: Value): number {
  if (typeof value === 'string') return characters(value).length;
  if (value instanceof Map) return value.size;
  if (value === undefined) return 0;
  if (Array.isArray(value)) return value.length;
  throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
}

/** A copy of the items, each charged as a step. */
function items(value: Value, budget: Budget): Value[] {
  const list = [...iterate(value)];
  budget.step(list.length);
  return list;
}

function indent(text: string, width: Value, first: Value, blank: Value, budget: Budget): string {
  const margin = typeof width === 'string' ? width : spaces(optionalInteger(width, 4, 'width'), budget);
  const lines = splitLines(`${text}\n`);
  budget.reserve(text.length + lines.length * margin.length);
  const [head = '', ...rest] = lines;
  const indented = rest.map((line) => (isTrue(blank) || line !== '' ? margin + line : line));
  return (isTrue(first) ? margin : '') + [head, ...indented].join('\n');
}

function spaces(count: number, budget: Budget): string {
  budget.reserve(Math.max(0, count));
  return ' '.repeat(Math.max(0, count));
}

function toInteger(value: Value, absent: Value): Value {
  const number = typeof value === 'string' ? Number(/^\s*[-+]?[0-9]+(\.[0-9]*)?\s*$/.exec(value)?.[0]) : toNumber(value);
  return number === undefined || !Number.isFinite(number) ? absent : Math.trunc(number);
}

function toFloat(value: Value, absent: Value): Value {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : toNumber(value);
  return number === undefined || Number.isNaN(number) ? absent : new Float(number);
}

function json(value: Value, [ensureAscii, indentation, separators, sortKeys]: readonly Value[], budget: Budget): string {
  const hasIndent = indentation !== undefined && indentation !== null;
  const given = separators === undefined || separators === null ? [hasIndent ? ',' : ', ', ': '] : iterate(separators);
  const [itemSeparator, keySeparator] = given;
  if (typeof itemSeparator !== 'string' || typeof keySeparator !== 'string') throw new TemplateError('separators must be two str');
  const level = typeof indentation === 'string' ? indentation : spaces(optionalInteger(indentation, 0, 'indent'), budget);
  const options = {
    ensureAscii: isTrue(ensureAscii),
    indent: hasIndent ? level : null,
    itemSeparator,
    keySeparator,
    sortKeys: isTrue(sortKeys),
  };
  return toJson(value, options, budget);
}

/** The value at path `a.b.0` of an item; without a path, the item itself. */
function pathOf(item: Value, path: Value, budget: Budget): Value {
  if (path === undefined || path === null) return item;
  const parts = typeof path === 'number' ? [path] : toText(path, budget).split('.');
  return parts.reduce((value: Value, part) => getItem(value, /^\d+$/.test(String(part)) ? Number(part) : part, budget), item);
}

function fold(value: Value, caseSensitive: Value): Value {
  return typeof value === 'string' && !isTrue(caseSensitive) ? value.toLowerCase() : value;
}

function sorted(list: Value[], key: (item: Value) => Value, reverse: Value, budget: Budget): Value[] {
  budget.step(list.length * 20);
  const direction = isTrue(reverse) ? -1 : 1;
  const keyed = list.map((item) => [key(item), item] as const);
  return keyed.sort(([a], [b]) => direction * compare(a, b)).map(([, item]) => item);
}

function dictSort(value: Value, [caseSensitive, by, reverse]: readonly Value[], budget: Budget): Value {
  if (!(value instanceof Map)) throw new TemplateError(`dictsort needs a mapping, not ${typeName(value)}`);
  const at = by === 'value' ? 1 : 0;
  const pairs = [...value].map(([key, item]) => Tuple.of(key, item) as Tuple);
  return sorted(pairs, (pair) => fold((pair as Tuple)[at], caseSensitive), reverse, budget);
}

function unique(value: Value, [caseSensitive, attribute]: readonly Value[], budget: Budget): Value {
  const seen: Value[] = [];
  return items(value, budget).filter((item) => {
    const key = fold(pathOf(item, attribute, budget), caseSensitive);
    budget.step(seen.length);
    return !seen.some((other) => isEqual(other, key)) && seen.push(key) > 0;
  });
}

function extreme(direction: 1 | -1): Filter {
  return filter(['case_sensitive', 'attribute'], (value, [caseSensitive, attribute], budget) => {
    const key = (item: Value) => fold(pathOf(item, attribute, budget), caseSensitive);
    const list = items(value, budget);
    return list.reduce((best, item) => (direction * compare(key(item), key(best)) > 0 ? item : best), list[0]);
  });
}

function sum(value: Value, [attribute, start = 0]: readonly Value[], budget: Budget): Value {
  const numbers = [start, ...items(value, budget).map((item) => pathOf(item, attribute, budget))];
  const total = numbers.reduce((all: number, item) => all + (toNumber(item) ?? Number.NaN), 0);
  if (Number.isNaN(total)) throw new TemplateError('sum needs numbers');
  return numbers.some((item) => item instanceof Float) ? new Float(total) : total;
}

function round(value: Value, [precision, mode]: readonly Value[]): Value {
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`round needs a number, not ${typeName(value)}`);
  if (optionalInteger(precision, 0, 'precision') !== 0 || (mode ?? 'common') === 'common') {
    throw new TemplateError("round is supported with precision 0 and method 'floor' or 'ceil' alone", 'template');
  }
  return new Float(mode === 'floor' ? Math.floor(number) : Math.ceil(number));
}

function join(value: Value, [separator, attribute]: readonly Value[], budget: Budget): string {
  const mark = separator === undefined ? '' : toText(separator, budget);
  const parts = items(value, budget).map((item) => toText(pathOf(item, attribute, budget), budget));
  budget.reserve(parts.length * mark.length);
  return parts.join(mark);
}

function absolute(value: Value): Value {
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`);
  return value instanceof Float ? new Float(Math.abs(number)) : Math.abs(number);
}

const reversed = (value: Value, budget: Budget): Value =>
  typeof value === 'string' ? Array.from(value).reverse().join('') : items(value, budget).reverse();

const aliases: Readonly<Record<string, string>> = { count: 'length', d: 'default' };

const filters: ReadonlyMap<string, Filter> = new Map(
  Object.entries({
    abs: filter([], absolute),
    capitalize: textFilter(capitalize),
    default: filter(['default_value', 'boolean'], (value, [absent = '', boolean]) =>
      value === undefined || (isTrue(boolean) && !isTrue(value)) ? absent : value,
    ),
    dictsort: filter(['case_sensitive', 'by', 'reverse'], dictSort),
    first: filter([], (value) => iterate(value)[0]),
    float: filter(['default'], (value, [absent = new Float(0)]) => toFloat(value, absent)),
    indent: filter(['width', 'first', 'blank'], (value, [width, first, blank], budget) =>
      indent(toText(value, budget), width, first, blank, budget),
    ),
    int: filter(['default'], (value, [absent = 0]) => toInteger(value, absent)),
    items: filter([], (value, _, budget) => {
      if (value === undefined) return [];
      if (!(value instanceof Map)) throw new TemplateError('Can only get item pairs from a mapping.');
      budget.step(value.size);
      return [...value].map(([key, item]) => Tuple.of(key, item) as Tuple);
    }),
    join: filter(['d', 'attribute'], join),
    last: filter([], (value) => iterate(value).at(-1)),
    length: filter([], length),
    list: filter([], (value, _, budget) => items(value, budget)),
    lower: textFilter((text) => text.toLowerCase()),
    max: extreme(1),
    min: extreme(-1),
    replace: filter(
      ['old', 'new', 'count'],
      (value, [from, to, count], budget) =>
        replace(toText(value, budget), toText(from, budget), toText(to, budget), optionalInteger(count, -1, 'count'), budget),
      2,
    ),
    reverse: filter([], (value, _, budget) => reversed(value, budget)),
    round: filter(['precision', 'method'], round),
    safe: textFilter((text) => text),
    sort: filter(['reverse', 'case_sensitive', 'attribute'], (value, [reverse, caseSensitive, attribute], budget) =>
      sorted(items(value, budget), (item) => fold(pathOf(item, attribute, budget), caseSensitive), reverse, budget),
    ),
    string: textFilter((text) => text),
    sum: filter(['attribute', 'start'], sum),
    title: textFilter((text) => text.replace(/[^-\s({[<]+/g, capitalize)),
    tojson: filter(['ensure_ascii', 'indent', 'separators', 'sort_keys'], json),
    trim: filter(['chars'], (value, [chars], budget) => strip(toText(value, budget), chars)),
    unique: filter(['case_sensitive', 'attribute'], unique),
    upper: textFilter((text) => text.toUpperCase()),
  }),
);

/** `map`, `select`, `reject`, `selectattr` and `rejectattr`, which apply a filter or test by its name. */
function runEach(name: string, value: Value, { positional, keywords }: Arguments, budget: Budget): Value {
  const list = items(value, budget);
  if (name === 'map') {
    const [filterName, ...args] = positional;
    if (filterName !== undefined)
      return list.map((item) => runFilter(toText(filterName, budget), item, { positional: args, keywords }, budget));
    const { attribute, default: absent } = Object.fromEntries(keywords);
    const found = (item: Value) => pathOf(item, attribute, budget);
    return list.map(found).map((one) => (one === undefined ? absent : one));
  }
  const byAttribute = name.endsWith('attr');
  const [attribute, testName, argument] = byAttribute ? positional : [undefined, ...positional];
  const wanted = name.startsWith('select');
  return list.filter((item) => {
    const tested = byAttribute ? pathOf(item, attribute, budget) : item;
    const holds = testName === undefined ? isTrue(tested) : runTest(toText(testName, budget), tested, argument, budget);
    return holds === wanted;
  });
}

/** @throws TemplateError for an unknown filter, or a value that it cannot take. */
export function runFilter(name: string, value: Value, args: Arguments, budget: Budget): Value {
  if (/^(?:map|(?:select|reject)(?:attr)?)$/.test(name)) return runEach(name, value, args, budget);
  if (name === 'attr') return getAttribute(value, toText(args.positional[0], budget), budget);
  const entry = filters.get(aliases[name] ?? name);
  if (entry === undefined) {
    const known = ['attr', 'map', 'reject', 'rejectattr', 'select', 'selectattr', ...Object.keys(aliases), ...filters.keys()];
    throw new TemplateError(`no filter named '${name}' (there are ${known.sort().join(', ')})`, 'template');
  }
  budget.step();
  const result = entry.run(value, bind(name, entry.parameters, entry.numNeeded, args), budget);
  return typeof result === 'string' ? budget.take(result) : result;
}
