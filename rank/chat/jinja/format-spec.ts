/** The mini-language after the colon of a format field: `{:>8.2f}`. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { integer } from './operators.ts';
import { realText } from './percent-format.ts';
import { floatText, toText } from './text.ts';
import { characters, Float, textOf, toNumber, typeName, type Value } from './values.ts';

const pattern = /^(?:(.)?([<>=^]))?([-+ ])?(z)?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su;

interface Spec {
  readonly fill: string;
  readonly align: string | undefined;
  readonly sign: string;
  readonly isAlternate: boolean;
  readonly width: number;
  readonly grouping: string | undefined;
  readonly precision: number | undefined;
  readonly type: string | undefined;
}

function parseSpec(text: string, value: Value): Spec {
  const match = pattern.exec(text);
  if (match === null || match[4] !== undefined)
    throw new TemplateError(`invalid format specifier '${text}' for a value of type ${typeName(value)}`);
  const [, fill, align, sign = '-', , alternate, zero, width = '0', grouping, precision, type] = match;
  return {
    fill: fill ?? (zero === undefined ? ' ' : '0'),
    align: align ?? (zero === undefined ? undefined : '='),
    sign,
    isAlternate: alternate !== undefined,
    width: Number(width),
    grouping,
    precision: precision === undefined ? undefined : Number(precision),
    type,
  };
}

/** Python's `format(value, spec)`. */
export function formatValue(value: Value, spec: string, budget: Budget): string {
  if (spec === '') return toText(value, budget);
  const number = toNumber(value);
  const text = textOf(value);
  if (number === undefined && text === undefined) {
    throw new TemplateError(`unsupported format string passed to ${typeName(value)}.__format__`);
  }
  const parsed = parseSpec(spec, value);
  budget.reserve(parsed.width + (parsed.precision ?? 0));
  if (text !== undefined) return formatText(text, parsed);
  return formatNumber(number ?? 0, value instanceof Float, parsed);
}

function formatText(text: string, { align = '<', precision, type = 's', sign, grouping, isAlternate, fill, width }: Spec): string {
  if (type !== 's' || sign !== '-' || grouping !== undefined || isAlternate) throw wrongCode(type, 'str');
  if (align === '=' && fill !== '0') throw new TemplateError("'=' alignment not allowed in string format specifier");
  const cut = precision === undefined ? text : Array.from(text).slice(0, precision).join('');
  return pad('', cut, align === '=' ? '<' : align, fill, width);
}

function formatNumber(number: number, isFloat: boolean, spec: Spec): string {
  const { type = isFloat ? '' : 'd', sign, align = '>', fill, width, grouping, isAlternate, precision } = spec;
  const isNegative = number < 0 || Object.is(number, -0);
  const prefix = isNegative ? '-' : sign === '-' ? '' : sign;
  const size = Math.abs(number);
  const base = { d: 10, x: 16, X: 16, o: 8, b: 2 }[type];
  if (type === 'c' && !isFloat) return pad('', String.fromCodePoint(number), spec.align ?? '<', fill, width);
  if (base === undefined) return pad(prefix, realDigits(size, type, spec), align, fill, width, grouping);
  if (isFloat) throw wrongCode(type, 'float');
  if (precision !== undefined) throw new TemplateError('precision not allowed in integer format specifier');
  const digits = integer(size).toString(base);
  const cased = type === 'X' ? digits.toUpperCase() : digits;
  const mark = isAlternate && base !== 10 ? `0${type}` : '';
  return pad(prefix + mark, group(cased, grouping, base === 10 ? 3 : 4), align, fill, width, grouping);
}

function realDigits(size: number, type: string, { precision, grouping, isAlternate }: Spec): string {
  if (type === '%') return `${group(realText(size * 100, 'f', precision ?? 6, false), grouping, 3)}%`;
  if (type === 'n') return realText(size, 'g', precision ?? 6, isAlternate);
  if (type === '' && precision === undefined) return group(floatText(size), grouping, 3);
  if (type === '') {
    const text = realText(size, 'g', precision ?? 6, isAlternate);
    return group(/^\d+$/.test(text) ? `${text}.0` : text, grouping, 3);
  }
  if (!/[eEfFgG]/.test(type)) throw wrongCode(type, 'float');
  return group(realText(size, type, precision ?? 6, isAlternate), grouping, 3);
}

/** Separates the digits before the point into groups. */
function group(text: string, mark: string | undefined, size: number): string {
  if (mark === undefined) return text;
  return text.replace(/^[\da-fA-F]+/, (digits) => digits.replace(new RegExp(`\\B(?=(?:.{${size}})+$)`, 'g'), mark));
}

function pad(prefix: string, text: string, align: string, fill: string, width: number, grouping?: string): string {
  const missing = width - characters(prefix).length - characters(text).length;
  if (missing <= 0) return prefix + text;
  if (align === '=' && fill === '0' && grouping !== undefined)
    throw new TemplateError('zeros before grouped digits are not supported in a format');
  if (align === '=') return prefix + fill.repeat(missing) + text;
  const left = align === '<' ? 0 : align === '>' ? missing : missing >> 1;
  return fill.repeat(left) + prefix + text + fill.repeat(missing - left);
}

function wrongCode(type: string, name: string): TemplateError {
  return new TemplateError(`unknown format code '${type}' for object of type '${name}'`);
}
