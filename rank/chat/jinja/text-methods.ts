/** The methods of Python's str, and of markup, which escapes what it takes. */
import { bindExactly, needInt, needText, absent as notGiven, optionalInt, optionalText } from './arguments.ts';
import { formatBraces } from './brace-format.ts';
import type { Budget } from './budget.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { escapeOperand, stripTags, unescapeHtml } from './html.ts';
import { iterate } from './iterables.ts';
import { capitalize, isCategory, isLower, isTitle, isUpper, swapCase, titleCase } from './letters.ts';
import { type Justification, justify, partition, replace, split, splitFromRight } from './text-edits.ts';
import { type Arguments, characters, Markup, Tuple, textOf, typeName, type Value } from './values.ts';
import { splitLines, strip } from './white-space.ts';

/** A method; `args` are its arguments in the places of its parameters, Undefined where absent. */
type TextMethod = (text: string, args: readonly Value[], budget: Budget) => Value;

interface TextMethodEntry {
  /** Parameter names in order, of which the first `numNeeded` have no default. */
  readonly parameters: readonly string[];
  readonly numNeeded: number;
  /** Whether its arguments may be named. */
  readonly hasNames: boolean;
  readonly run: TextMethod;
}

function method(parameters: readonly string[], numNeeded: number, run: TextMethod, hasNames = false): TextMethodEntry {
  return { parameters, numNeeded, hasNames, run };
}

const plain = (run: (text: string) => Value) => method([], 0, run);
const finder = (find: (text: string, part: string) => number, needed = false) =>
  method(['sub', 'start', 'end'], 1, (text, [sub, start, end]) => {
    const part = needText(sub, 'sub');
    const [from, window] = range(text, start, end);
    const at = from > characters(text).length ? -1 : find(window, part);
    if (at < 0 && needed) throw new TemplateError('substring not found');
    return at < 0 ? -1 : from + characters(window.slice(0, at)).length;
  });
const affixed = (test: (text: string, affix: string) => boolean) =>
  method(['prefix', 'start', 'end'], 1, (text, [affix, start, end]) => {
    const [from, window] = range(text, start, end);
    const matches = (one: Value) => test(window, needText(one, 'a prefix or suffix'));
    if (from > characters(text).length) return false;
    return affix instanceof Tuple ? affix.some(matches) : matches(affix);
  });
const justified = (side: Justification) =>
  method(['width', 'fillchar'], 1, (text, [width, fill], budget) => {
    const unit = fill === undefined ? ' ' : needText(fill, 'the fill character');
    if (characters(unit).length !== 1) throw new TemplateError('the fill character must be exactly one character long');
    return justify(text, needInt(width, 'width'), unit, side, budget);
  });
const stripped = (sides?: 'left' | 'right') =>
  method(['chars'], 0, (text, [chars]) => strip(text, optionalText(chars, 'strip arg'), sides));

/** Start of a part in characters, and the part. */
function range(text: string, start: Value, end: Value): [number, string] {
  if (start === undefined && end === undefined) return [0, text];
  const units = Array.from(text);
  const clamp = (bound: number) => Math.max(0, bound < 0 ? bound + units.length : bound);
  const [from, to] = [clamp(optionalInt(start, 0, 'start')), clamp(optionalInt(end, units.length, 'end'))];
  return [from, units.slice(from, to).join('')];
}

function count(text: string, part: string): number {
  return part === '' ? characters(text).length + 1 : text.split(part).length - 1;
}

function translate(text: string, table: Value, budget: Budget): string {
  if (!(table instanceof Dict)) throw new TemplateError(`str.translate needs a dict, not ${typeName(table)}`);
  const mapped = (character: string) => {
    const code = character.codePointAt(0) ?? 0;
    if (!table.has(code)) return character;
    const to = table.get(code);
    return to === null ? '' : typeof to === 'number' ? String.fromCodePoint(to) : needText(to, 'a value of the table');
  };
  return budget.take(Array.from(text, mapped).join(''));
}

const methods: ReadonlyMap<string, TextMethodEntry> = new Map(
  Object.entries({
    upper: plain((text) => text.toUpperCase()),
    lower: plain((text) => text.toLowerCase()),
    casefold: plain((text) => text.toLowerCase().replaceAll('ß', 'ss').replaceAll('ς', 'σ')),
    title: plain(titleCase),
    capitalize: plain(capitalize),
    swapcase: plain(swapCase),
    strip: stripped(),
    lstrip: stripped('left'),
    rstrip: stripped('right'),
    split: method(
      ['sep', 'maxsplit'],
      0,
      (text, [sep, most]) => split(text, optionalText(sep, 'sep'), optionalInt(most, -1, 'maxsplit')),
      true,
    ),
    rsplit: method(
      ['sep', 'maxsplit'],
      0,
      (text, [sep, most]) => splitFromRight(text, optionalText(sep, 'sep'), optionalInt(most, -1, 'maxsplit')),
      true,
    ),
    splitlines: method(['keepends'], 0, (text, [keep]) => splitLines(text, Boolean(keep)), true),
    partition: method(['sep'], 1, (text, [mark]) => partition(text, needText(mark, 'sep'), 'left')),
    rpartition: method(['sep'], 1, (text, [mark]) => partition(text, needText(mark, 'sep'), 'right')),
    startswith: affixed((text, affix) => text.startsWith(affix)),
    endswith: affixed((text, affix) => text.endsWith(affix)),
    removeprefix: method(['prefix'], 1, (text, [prefix]) => {
      const start = needText(prefix, 'the prefix');
      return text.startsWith(start) ? text.slice(start.length) : text;
    }),
    removesuffix: method(['suffix'], 1, (text, [suffix]) => {
      const end = needText(suffix, 'the suffix');
      return end !== '' && text.endsWith(end) ? text.slice(0, -end.length) : text;
    }),
    replace: method(['old', 'new', 'count'], 2, (text, [from, to, most], budget) =>
      replace(text, needText(from, 'old'), needText(to, 'new'), optionalInt(most, -1, 'count'), budget),
    ),
    find: finder((text, part) => text.indexOf(part)),
    rfind: finder((text, part) => text.lastIndexOf(part)),
    index: finder((text, part) => text.indexOf(part), true),
    rindex: finder((text, part) => text.lastIndexOf(part), true),
    count: method(['sub', 'start', 'end'], 1, (text, [sub, start, end]) => count(range(text, start, end)[1], needText(sub, 'sub'))),
    join: method(['iterable'], 1, (text, [items], budget) => {
      const parts = Array.from(iterate(items), (item) => needText(item, 'an item to join'));
      budget.reserve(parts.length * text.length);
      return parts.join(text);
    }),
    isdigit: plain((text) => isCategory(text, 'digit')),
    isdecimal: plain((text) => isCategory(text, 'decimal')),
    isnumeric: plain((text) => isCategory(text, 'numeric')),
    isalpha: plain((text) => isCategory(text, 'alpha')),
    isalnum: plain((text) => isCategory(text, 'alnum')),
    isspace: plain((text) => isCategory(text, 'space')),
    isprintable: plain((text) => isCategory(text, 'printable')),
    isidentifier: plain((text) => isCategory(text, 'identifier')),
    isascii: plain((text) => isCategory(text, 'ascii')),
    isupper: plain(isUpper),
    islower: plain(isLower),
    istitle: plain(isTitle),
    ljust: justified('left'),
    rjust: justified('right'),
    center: justified('center'),
    zfill: method(['width'], 1, (text, [width], budget) => {
      const sign = /^[-+]/.exec(text)?.[0] ?? '';
      return sign + justify(text.slice(sign.length), needInt(width, 'width') - sign.length, '0', 'right', budget);
    }),
    expandtabs: method(['tabsize'], 0, (text, [size], budget) => expandTabs(text, optionalInt(size, 8, 'tabsize'), budget), true),
    translate: method(['table'], 1, (text, [table], budget) => translate(text, table, budget)),
  }),
);

function expandTabs(text: string, size: number, budget: Budget): string {
  let column = 0;
  const expanded = Array.from(text, (character) => {
    if (character === '\t') {
      const width = size > 0 ? size - (column % size) : 0;
      column += width;
      budget.reserve(width);
      return ' '.repeat(width);
    }
    column = character === '\n' || character === '\r' ? 0 : column + 1;
    return character;
  });
  return expanded.join('');
}

const unsupported = ['encode', 'maketrans', 'partial'];
/** Methods of markup that return plain values. */
const plainForMarkup = /^(?:find|rfind|index|rindex|count|startswith|endswith|is[a-z]+)$/;

/** The method bound to a text; `undefined` where there is none of that name. */
export function textMethod(value: string | Markup, name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const text = textOf(value) ?? '';
  const isMarkup = value instanceof Markup;
  if (name === 'format') return (args) => formatBraces(text, args, isMarkup, budget);
  if (name === 'format_map') return ({ positional }) => formatBraces(text, namedValues(positional), isMarkup, budget);
  if (isMarkup && name === 'unescape') return () => unescapeHtml(text);
  if (isMarkup && name === 'striptags') return () => stripTags(text);
  if (unsupported.includes(name)) return () => unsupportedMethod(name);
  const entry = methods.get(name);
  if (entry === undefined) return undefined;
  return (args) => {
    budget.reserve(text.length);
    budget.step(1 + (text.length >> 6));
    if (!entry.hasNames && args.keywords.size > 0) throw new TemplateError(`str.${name}() takes no keyword arguments`);
    const bound = bindExactly(`str.${name}`, entry.parameters, entry.numNeeded, args).map((one) => (one === notGiven ? undefined : one));
    const isWrapped = isMarkup && !plainForMarkup.test(name);
    const given = isWrapped ? bound.map((one) => escapeArgument(one, budget)) : bound;
    const result = entry.run(text, given, budget);
    if (typeof result === 'string') budget.reserve(result.length);
    return isWrapped ? wrap(result) : result;
  };
}

function unsupportedMethod(name: string): never {
  throw new TemplateError(`str.${name} is not supported`);
}

function namedValues(positional: readonly Value[]): Arguments {
  const [mapping] = positional;
  if (!(mapping instanceof Dict)) throw new TemplateError('format_map() takes a dict');
  return { positional: [], keywords: new Map([...mapping.entries()].map(([key, value]) => [String(textOf(key)), value])) };
}

function escapeArgument(value: Value, budget: Budget): Value {
  if (Array.isArray(value)) return value.map((item) => escapeOperand(item, budget));
  return textOf(value) === undefined ? value : escapeOperand(value, budget);
}

function wrap(value: Value): Value {
  if (typeof value === 'string') return new Markup(value);
  return Array.isArray(value) ? value.map(wrap) : value;
}
