/** Filters of numbers. */
import { needInt, optionalInt } from '../arguments.ts';
import type { Budget } from '../budget.ts';
import { fixed, roundFloat } from '../decimals.ts';
import { Dict } from '../dict.ts';
import { TemplateError } from '../errors.ts';
import { integer } from '../operators.ts';
import { formatPercent } from '../percent-format.ts';
import { toText } from '../text.ts';
import { type Arguments, Float, isTrue, Markup, Tuple, textOf, toInt, toNumber, typeName, type Value } from '../values.ts';
import { strip } from '../white-space.ts';
import { type Filter, filter } from './filter.ts';

const decimal = String.raw`\d+(?:_\d+)*`;
const floatPattern = new RegExp(
  String.raw`^[-+]?(?:(?:${decimal}\.?(?:${decimal})?|\.${decimal})(?:e[-+]?${decimal})?|inf(?:inity)?|nan)$`,
  'i',
);

/** `float(text)`; `undefined` for a text that is no number. */
function parseFloatText(text: string): number | undefined {
  const trimmed = strip(text, null);
  if (!floatPattern.test(trimmed)) return undefined;
  const sign = trimmed.startsWith('-') ? -1 : 1;
  const size = trimmed.replace(/^[-+]/, '').replaceAll('_', '').toLowerCase();
  return sign * (size.startsWith('inf') ? Number.POSITIVE_INFINITY : size === 'nan' ? Number.NaN : Number(size));
}

const prefixes: Readonly<Record<string, number>> = { b: 2, o: 8, x: 16 };

/** `int(text, base)`; `undefined` for a text that is no integer. */
function parseIntText(text: string, base: number): number | undefined {
  if (base !== 0 && (base < 2 || base > 36)) return undefined;
  const [, sign, prefix, digits = ''] = /^([-+]?)(?:0([box])_?)?([\da-z]+(?:_[\da-z]+)*)$/i.exec(strip(text, null)) ?? [];
  const prefixBase = prefixes[prefix?.toLowerCase() ?? ''];
  const isPrefixed = prefixBase !== undefined && (base === 0 || base === prefixBase);
  const plain = (isPrefixed || prefix === undefined ? digits : `0${prefix}${digits}`).replaceAll('_', '').toLowerCase();
  const radix = isPrefixed ? prefixBase : base === 0 ? 10 : base;
  if (plain === '' || (base === 0 && !isPrefixed && /^0+[1-9]/.test(plain))) return undefined;
  let total = 0;
  for (const digit of plain) {
    const value = Number.parseInt(digit, radix);
    if (Number.isNaN(value)) return undefined;
    total = integer(total * radix + value);
  }
  return sign === '-' ? integer(-total) : total;
}

function toInteger(value: Value, [otherwise, base]: readonly Value[]): Value {
  if (value === undefined) throw new TemplateError('an undefined value cannot become an int');
  const text = textOf(value);
  const parsed = text === undefined ? undefined : parseIntText(text, needInt(base, 'base'));
  if (parsed !== undefined) return parsed;
  const number = text === undefined ? toNumber(value) : parseFloatText(text);
  if (number === Number.POSITIVE_INFINITY && text === undefined) throw new TemplateError('cannot convert float infinity to integer');
  return number === undefined || !Number.isFinite(number) ? otherwise : integer(Math.trunc(number));
}

function toFloat(value: Value, [otherwise]: readonly Value[]): Value {
  if (value === undefined) throw new TemplateError('an undefined value cannot become a float');
  const text = textOf(value);
  const number = text === undefined ? toNumber(value) : parseFloatText(text);
  return number === undefined ? otherwise : new Float(number);
}

function round(value: Value, [precision, method]: readonly Value[]): Value {
  const number = toNumber(value);
  if (method !== 'common' && method !== 'ceil' && method !== 'floor') throw new TemplateError('method must be common, ceil or floor');
  if (number === undefined) throw new TemplateError(`round needs a number, not ${typeName(value)}`);
  if (method === 'common') {
    const digits = optionalInt(precision, 0, 'precision');
    if (value instanceof Float && precision !== null) return new Float(roundFloat(number, digits));
    return value instanceof Float || digits < 0 ? integer(roundFloat(number, digits)) : number;
  }
  const scale = 10 ** needInt(precision, 'precision');
  const rounded = method === 'floor' ? Math.floor(number * scale) : Math.ceil(number * scale);
  return new Float((rounded === 0 ? 0 : rounded) / scale);
}

function absolute(value: Value): Value {
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`);
  return value instanceof Float ? new Float(Math.abs(number)) : Math.abs(number);
}

function fileSize(value: Value, [binary]: readonly Value[]): string {
  const number = value instanceof Float ? value.value : (toInt(value) ?? parseFloatText(textOf(value) ?? ''));
  if (number === undefined) throw new TemplateError(`filesizeformat needs a number, not ${typeName(value)}`);
  const base = isTrue(binary) ? 1024 : 1000;
  if (number === 1) return '1 Byte';
  if (number < base) return `${Math.trunc(number)} Bytes`;
  const units = isTrue(binary)
    ? ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB']
    : ['kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'];
  const at = units.findIndex((_, i) => number < base ** (i + 2));
  const power = at < 0 ? units.length - 1 : at;
  return `${fixed((base * number) / base ** (power + 2), 1)} ${units[power]}`;
}

/** `'%s'|format(value)`, which takes positional arguments or named ones. */
export function formatFilter(value: Value, { positional, keywords }: Arguments, budget: Budget): Value {
  if (positional.length > 0 && keywords.size > 0) throw new TemplateError('format takes positional arguments or named ones, not both');
  const text = value instanceof Markup ? value : toText(value, budget);
  const values = keywords.size > 0 ? Dict.from(keywords) : (Tuple.from(positional) as Tuple);
  return formatPercent(text, values, budget);
}

export const numberFilters: Readonly<Record<string, Filter>> = {
  abs: filter(absolute),
  filesizeformat: filter(fileSize, [], { binary: false }),
  float: filter(toFloat, [], { default: new Float(0) }),
  int: filter(toInteger, [], { default: 0, base: 10 }),
  round: filter(round, [], { precision: 0, method: 'common' }),
};
