/** Filters of text. */
import { needInt, needText, optionalInt } from '../arguments.ts';
import type { Budget } from '../budget.ts';
import { Dict } from '../dict.ts';
import { TemplateError } from '../errors.ts';
import { escapeHtml, escapeValue, stripTags } from '../html.ts';
import { iterate, length } from '../iterables.ts';
import { quote, repr, toText } from '../text.ts';
import { replace } from '../text-edits.ts';
import { textMethod } from '../text-methods.ts';
import { characters, isTrue, Markup, textOf, typeName, type Value } from '../values.ts';
import { space, splitLines } from '../white-space.ts';
import { type Filter, filter } from './filter.ts';
import { wrapText } from './word-wrap.ts';

/** Markup as it is, other values as str. */
function soft(value: Value, budget: Budget): string | Markup {
  return value instanceof Markup ? value : toText(value, budget);
}

/** A filter that is a method of str, with the filter's own defaults. */
function asMethod(name: string, defaults: Readonly<Record<string, Value>> = {}): Filter {
  const run = (value: Value, args: readonly Value[], budget: Budget) =>
    textMethod(soft(value, budget), name, budget)?.({ positional: args, keywords: new Map() });
  return filter(run, [], defaults);
}

function title(text: string): string {
  return text.replace(new RegExp(`(?:(?!${space})[^-({[<])+`, 'gu'), (word) => {
    const [first = ''] = Array.from(word);
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  });
}

function indent(value: Value, [width, first, blank]: readonly Value[], budget: Budget): Value {
  const text = textOf(value);
  if (text === undefined) throw new TemplateError(`indent needs a str, not ${typeName(value)}`);
  const margin = textOf(width) ?? spaces(needInt(width, 'width'), budget);
  const [head = '', ...rest] = splitLines(`${text}\n`);
  budget.reserve(text.length + (rest.length + 1) * margin.length);
  const lines = rest.map((line) => (isTrue(blank) || line !== '' ? margin + line : line));
  const result = (isTrue(first) ? margin : '') + [head, ...lines].join('\n');
  return value instanceof Markup ? new Markup(result) : result;
}

function spaces(count: number, budget: Budget): string {
  budget.reserve(Math.max(0, count));
  return ' '.repeat(Math.max(0, count));
}

function truncate(value: Value, [width, killWords, end, leeway]: readonly Value[]): Value {
  const [most, mark] = [needInt(width, 'length'), needText(end, 'end')];
  const slack = optionalInt(leeway, 5, 'leeway');
  const markLength = characters(mark).length;
  if (most < markLength) throw new TemplateError(`expected length >= ${markLength}, got ${most}`);
  if (slack < 0) throw new TemplateError(`expected leeway >= 0, got ${slack}`);
  if (length(value) <= most + slack) return value;
  const units = Array.from(needText(value, 'what is truncated'));
  const kept = units.slice(0, most - markLength).join('');
  const at = isTrue(killWords) ? -1 : kept.lastIndexOf(' ');
  return (at < 0 ? kept : kept.slice(0, at)) + mark;
}

const unreserved = /[\w.~-]/;

function urlQuote(value: Value, isQuery: boolean, budget: Budget): string {
  const bytes = new TextEncoder().encode(toText(value, budget));
  budget.reserve(bytes.length * 3);
  return Array.from(bytes, (byte) => {
    const character = String.fromCharCode(byte);
    if (byte < 0x80 && (unreserved.test(character) || (character === '/' && !isQuery))) return character;
    if (character === ' ' && isQuery) return '+';
    return `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }).join('');
}

function urlEncode(value: Value, budget: Budget): string {
  const isList =
    Array.isArray(value) ||
    value instanceof Dict ||
    (typeof value === 'object' && value !== null && !(value instanceof Markup) && 'iterate' in value);
  if (!isList) return urlQuote(value, false, budget);
  const pairs = value instanceof Dict ? value.entries() : Array.from(iterate(value), (pair) => [...iterate(pair)]);
  return Array.from<readonly Value[], string>(pairs as Iterable<readonly Value[]>, (pair) => {
    if (pair.length !== 2) throw new TemplateError(`urlencode takes pairs, not ${pair.length} values`);
    return pair.map((one) => urlQuote(one, true, budget)).join('=');
  }).join('&');
}

function xmlAttributes(value: Value, [autospace]: readonly Value[], budget: Budget): string {
  if (!(value instanceof Dict)) throw new TemplateError(`xmlattr needs a mapping, not ${typeName(value)}`);
  const items: string[] = [];
  for (const [key, item] of value.entries()) {
    if (item === null || item === undefined) continue;
    const name = needText(key, 'the name of an attribute');
    if (/[ \t\n\r\f\v/>=]/.test(name)) throw new TemplateError(`invalid character in attribute name: ${quote(name)}`);
    items.push(`${escapeHtml(name)}="${escapeValue(item, budget).text}"`);
  }
  return (isTrue(autospace) && items.length > 0 ? ' ' : '') + items.join(' ');
}

/** Pretty printing differs from `repr` in the order of keys, and in lines, which are not supported. */
function prettyPrint(value: Value, budget: Budget): string {
  const text = repr(sortKeys(value), budget);
  if (characters(text).length > 80)
    throw new TemplateError('pprint of a value that does not fit on a line of 80 characters is not supported');
  return text;
}

function sortKeys(value: Value): Value {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (!(value instanceof Dict)) return value;
  const order = ([a]: readonly [Value, Value], [b]: readonly [Value, Value]) => (String(a) < String(b) ? -1 : 1);
  return Dict.from([...value.entries()].map(([key, item]) => [key, sortKeys(item)] as const).sort(order));
}

const asText = (run: (text: string) => Value) => filter((value, _, budget) => run(toText(value, budget)));

export const textFilters: Readonly<Record<string, Filter>> = {
  capitalize: asMethod('capitalize'),
  center: asMethod('center', { width: 80 }),
  e: filter((value, _, budget) => escapeValue(value, budget)),
  escape: filter((value, _, budget) => escapeValue(value, budget)),
  forceescape: asText((text) => new Markup(escapeHtml(text))),
  indent: filter(indent, [], { width: 4, first: false, blank: false }),
  lower: asMethod('lower'),
  pprint: filter((value, _, budget) => prettyPrint(value, budget)),
  replace: filter(
    (value, [from, to, count], budget) =>
      replace(toText(value, budget), toText(from, budget), toText(to, budget), optionalInt(count, -1, 'count'), budget),
    ['old', 'new'],
    { count: null },
  ),
  safe: asText((text) => new Markup(text)),
  string: filter((value, _, budget) => soft(value, budget)),
  striptags: asText(stripTags),
  title: asText(title),
  trim: asMethod('strip', { chars: null }),
  truncate: filter(truncate, [], { length: 255, killwords: false, end: '...', leeway: null }),
  upper: asMethod('upper'),
  urlencode: filter((value, _, budget) => urlEncode(value, budget)),
  wordcount: asText((text) => (text.match(/[\p{L}\p{N}_]+/gu) ?? []).length),
  wordwrap: filter(wrapText, [], { width: 79, break_long_words: true, wrapstring: null, break_on_hyphens: true }),
  xmlattr: filter(xmlAttributes, [], { autospace: true }),
};
