/** Python's `str` methods, with Python's white space, lines and characters. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { type Arguments, characters, iterate, Tuple, typeName, type Value } from './values.ts';

/** White space of `str.isspace`; JavaScript's has U+FEFF and lacks U+0085 and U+001C … U+001F. */
const space = String.raw`[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]`;
const isSpace = new RegExp(space);
const spaces = new RegExp(`(?:${space})+`, 'g');
const lineBreaks = String.raw`\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]`;

/** A method; `args` are its positional arguments, with named ones put in their places. */
type TextMethod = (text: string, args: readonly Value[], budget: Budget) => Value;

interface TextMethodEntry {
  /** Parameter names in order; the first `numNeeded` have no default. */
  readonly parameters: readonly string[];
  readonly numNeeded: number;
  readonly run: TextMethod;
}

function method(parameters: readonly string[], numNeeded: number, run: TextMethod): TextMethodEntry {
  return { parameters, numNeeded, run };
}

function plain(run: (text: string) => Value): TextMethodEntry {
  return method([], 0, run);
}

function needText(value: Value, what: string): string {
  if (typeof value !== 'string') throw new TemplateError(`${what} must be str, not ${typeName(value)}`);
  return value;
}

/** An integer argument; `absent` for Undefined and None. */
export function optionalInteger(value: Value, absent: number, what: string): number {
  if (value === undefined || value === null) return absent;
  if (typeof value !== 'number') throw new TemplateError(`${what} must be int, not ${typeName(value)}`);
  return value;
}

/** `str.strip` and its one-sided variants; strips white space without `chars`. */
export function strip(text: string, chars: Value, sides: 'both' | 'left' | 'right' = 'both'): string {
  const set = chars === undefined || chars === null ? null : new Set(needText(chars, 'strip arg'));
  const isStripped = (character: string | undefined) =>
    character !== undefined && (set === null ? isSpace.test(character) : set.has(character));
  const units = characters(text);
  let [start, end] = [0, units.length];
  if (sides !== 'right') while (start < end && isStripped(units[start])) start++;
  if (sides !== 'left') while (end > start && isStripped(units[end - 1])) end--;
  return typeof units === 'string' ? units.slice(start, end) : units.slice(start, end).join('');
}

/** `str.splitlines()`. */
export function splitLines(text: string): string[] {
  const lines = text.split(new RegExp(lineBreaks));
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/** `str.replace(old, new, count)`; a negative count replaces all. */
export function replace(text: string, from: string, to: string, count: number, budget: Budget): string {
  if (from === '') {
    const units = Array.from(text);
    const numPlaces = count < 0 ? units.length + 1 : Math.min(count, units.length + 1);
    budget.reserve(text.length + numPlaces * to.length);
    return [...units, ''].map((unit, i) => (i < numPlaces ? to : '') + unit).join('');
  }
  const parts = text.split(from);
  const numReplaced = count < 0 ? parts.length - 1 : Math.min(count, parts.length - 1);
  budget.reserve(text.length + numReplaced * to.length);
  return [parts.slice(0, numReplaced + 1).join(to), ...parts.slice(numReplaced + 1)].join(from);
}

function split(text: string, separator: Value, maxSplit: Value): string[] {
  const most = optionalInteger(maxSplit, -1, 'maxsplit');
  if (separator === undefined || separator === null) {
    const trimmed = strip(text, null, 'left');
    const words: string[] = [];
    let end = 0;
    for (const gap of trimmed.matchAll(spaces)) {
      if (words.length === most) break;
      words.push(trimmed.slice(end, gap.index));
      end = gap.index + gap[0].length;
    }
    return end === trimmed.length ? words : [...words, trimmed.slice(end)];
  }
  if (separator === '') throw new TemplateError('empty separator');
  const parts = text.split(needText(separator, 'separator'));
  return most < 0 || parts.length <= most ? parts : [...parts.slice(0, most), parts.slice(most).join(separator as string)];
}

function splitFromRight(text: string, separator: Value, maxSplit: Value): string[] {
  const most = optionalInteger(maxSplit, -1, 'maxsplit');
  if (separator === undefined || separator === null) {
    if (most < 0) return split(text, null, -1);
    throw new TemplateError('rsplit(None, maxsplit) is not supported', 'template');
  }
  const parts = split(text, separator, -1);
  const numKept = most < 0 ? parts.length : Math.min(most, parts.length - 1);
  return most < 0 ? parts : [parts.slice(0, parts.length - numKept).join(separator as string), ...parts.slice(parts.length - numKept)];
}

/** Whether a text starts or ends with one of the given affixes. */
function matches(text: string, affix: Value, test: (affix: string) => boolean): boolean {
  if (affix instanceof Tuple) return affix.some((one) => matches(text, one, test));
  return test(needText(affix, 'a prefix or suffix'));
}

function partition(text: string, separator: Value, at: number): Tuple {
  const mark = needText(separator, 'separator');
  if (mark === '') throw new TemplateError('empty separator');
  return Tuple.of(text.slice(0, at), mark, text.slice(at + mark.length)) as Tuple;
}

/** Index in characters of an index in code units. */
function position(text: string, at: number): number {
  return at < 0 ? at : characters(text.slice(0, at)).length;
}

function count(text: string, part: string): number {
  return part === '' ? characters(text).length + 1 : text.split(part).length - 1;
}

/** `str.title()`: a letter that follows no letter starts a word. */
function title(text: string): string {
  return text.replace(/[\p{L}\p{M}]+/gu, (word) => capitalize(word));
}

/** `str.capitalize()`. */
export function capitalize(text: string): string {
  const [first = ''] = Array.from(text);
  return first.toUpperCase() + text.slice(first.length).toLowerCase();
}

function justify(text: string, width: Value, fill: Value, side: 'left' | 'right' | 'center', budget: Budget): string {
  const padding = optionalInteger(width, 0, 'width') - characters(text).length;
  const unit = fill === undefined ? ' ' : needText(fill, 'the fill character');
  if (padding <= 0) return text;
  budget.reserve(text.length + padding * unit.length);
  if (side === 'left') return text + unit.repeat(padding);
  if (side === 'right') return unit.repeat(padding) + text;
  const left = (padding >> 1) + (padding & (optionalInteger(width, 0, 'width') & 1));
  return unit.repeat(left) + text + unit.repeat(padding - left);
}

const prefix = ['prefix'];
const splitting = ['sep', 'maxsplit'];

const methods: ReadonlyMap<string, TextMethodEntry> = new Map(
  Object.entries({
    upper: plain((text) => text.toUpperCase()),
    lower: plain((text) => text.toLowerCase()),
    title: plain(title),
    capitalize: plain(capitalize),
    strip: method(['chars'], 0, (text, [chars]) => strip(text, chars)),
    lstrip: method(['chars'], 0, (text, [chars]) => strip(text, chars, 'left')),
    rstrip: method(['chars'], 0, (text, [chars]) => strip(text, chars, 'right')),
    split: method(splitting, 0, (text, [separator, most]) => split(text, separator, most)),
    rsplit: method(splitting, 0, (text, [separator, most]) => splitFromRight(text, separator, most)),
    splitlines: plain(splitLines),
    partition: method(splitting, 1, (text, [mark]) => {
      const at = text.indexOf(needText(mark, 'separator'));
      return at < 0 ? (Tuple.of(text, '', '') as Tuple) : partition(text, mark, at);
    }),
    rpartition: method(splitting, 1, (text, [mark]) => {
      const at = text.lastIndexOf(needText(mark, 'separator'));
      return at < 0 ? (Tuple.of('', '', text) as Tuple) : partition(text, mark, at);
    }),
    startswith: method(prefix, 1, (text, [affix]) => matches(text, affix, (one) => text.startsWith(one))),
    endswith: method(prefix, 1, (text, [affix]) => matches(text, affix, (one) => text.endsWith(one))),
    removeprefix: method(prefix, 1, (text, [affix]) => {
      const start = needText(affix, 'the prefix');
      return text.startsWith(start) ? text.slice(start.length) : text;
    }),
    removesuffix: method(prefix, 1, (text, [affix]) => {
      const end = needText(affix, 'the suffix');
      return end !== '' && text.endsWith(end) ? text.slice(0, -end.length) : text;
    }),
    replace: method(['old', 'new', 'count'], 2, (text, [from, to, most], budget) =>
      replace(text, needText(from, 'old'), needText(to, 'new'), optionalInteger(most, -1, 'count'), budget),
    ),
    find: method(['sub'], 1, (text, [part]) => position(text, text.indexOf(needText(part, 'sub')))),
    rfind: method(['sub'], 1, (text, [part]) => position(text, text.lastIndexOf(needText(part, 'sub')))),
    index: method(['sub'], 1, (text, [part]) => {
      const at = text.indexOf(needText(part, 'sub'));
      if (at < 0) throw new TemplateError('substring not found');
      return position(text, at);
    }),
    count: method(['sub'], 1, (text, [part]) => count(text, needText(part, 'sub'))),
    join: method(['iterable'], 1, (text, [items], budget) => {
      const parts = iterate(items).map((item) => needText(item, 'an item to join'));
      return budget.take(parts.join(budget.take(text)));
    }),
    isdigit: plain((text) => /^\p{Nd}+$/u.test(text)),
    isalpha: plain((text) => /^\p{L}+$/u.test(text)),
    isalnum: plain((text) => /^[\p{L}\p{N}]+$/u.test(text)),
    isspace: plain((text) => new RegExp(`^${space}+$`).test(text)),
    isupper: plain((text) => text !== text.toLowerCase() && text === text.toUpperCase()),
    islower: plain((text) => text !== text.toUpperCase() && text === text.toLowerCase()),
    ljust: method(['width', 'fillchar'], 1, (text, [width, fill], budget) => justify(text, width, fill, 'left', budget)),
    rjust: method(['width', 'fillchar'], 1, (text, [width, fill], budget) => justify(text, width, fill, 'right', budget)),
    center: method(['width', 'fillchar'], 1, (text, [width, fill], budget) => justify(text, width, fill, 'center', budget)),
  }),
);

const unsupported = [
  ...['casefold', 'encode', 'expandtabs', 'format', 'format_map', 'isascii', 'isdecimal', 'isidentifier', 'isnumeric'],
  ...['isprintable', 'istitle', 'maketrans', 'rindex', 'swapcase', 'translate', 'zfill'],
];

/**
 * Arranges positional and named arguments by parameter.
 * @throws TemplateError for too many, too few or unknown ones.
 */
export function bind(name: string, parameters: readonly string[], numNeeded: number, { positional, keywords }: Arguments): Value[] {
  const args: Value[] = [...positional];
  if (args.length > parameters.length)
    throw new TemplateError(`${name}() takes at most ${parameters.length} arguments, not ${args.length}`);
  const given = new Set(parameters.slice(0, args.length));
  for (const [key, value] of keywords) {
    const at = parameters.indexOf(key);
    if (at < 0 || given.has(key)) throw new TemplateError(`${name}() got an unexpected keyword argument '${key}'`);
    given.add(key);
    args[at] = value;
  }
  const missing = parameters.slice(0, numNeeded).find((parameter) => !given.has(parameter));
  if (missing !== undefined) throw new TemplateError(`${name}() is missing the argument '${missing}'`);
  return args;
}

/** The method bound to a text; `undefined` where there is none of that name. */
export function textMethod(text: string, name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const entry = methods.get(name);
  if (unsupported.includes(name)) throw new TemplateError(`str.${name} is not supported`, 'template');
  if (entry === undefined) return undefined;
  return (args) => {
    budget.reserve(text.length);
    budget.step(1 + (text.length >> 6));
    const result = entry.run(text, bind(name, entry.parameters, entry.numNeeded, args), budget);
    return typeof result === 'string' ? budget.take(result) : result;
  };
}
