/** `'%s and %d' % values`. */
import { needInt } from './arguments.ts';
import type { Budget } from './budget.ts';
import { fixed, general, scientific } from './decimals.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { escapeHtml } from './html.ts';
import { isSequence } from './iterables.ts';
import { integer } from './operators.ts';
import { escapeCode, repr, toText } from './text.ts';
import { characters, Float, Markup, Tuple, textOf, toNumber, typeName, type Value } from './values.ts';

const directive = /%(?:\(((?:[^()]|\([^()]*\))*)\))?([-+ 0#]*)(\*|\d*)(?:\.(\*|\d*))?[hlL]?([\s\S])?/gu;

/** Reads the values of a format one by one, or by name where it is given a mapping. */
class Values {
  readonly #value: Value;
  readonly #list: readonly Value[];
  #at = 0;

  constructor(value: Value) {
    this.#value = value;
    this.#list = value instanceof Tuple ? value : [value];
  }

  next(): Value {
    if (this.#at >= this.#list.length) throw new TemplateError('not enough arguments for format string');
    return this.#list[this.#at++];
  }

  named(name: string): Value {
    if (!(this.#value instanceof Dict)) throw new TemplateError('format requires a mapping');
    if (!this.#value.has(name)) throw new TemplateError(`the format's mapping has no key '${name}'`);
    this.#at = this.#list.length;
    return this.#value.get(name);
  }

  /** @throws TemplateError for values that no directive took, unless they have items by key or index. */
  end(): void {
    const value = this.#value;
    const isMapping = isSequence(value) && textOf(value) === undefined && !(value instanceof Tuple);
    if (this.#at < this.#list.length && !isMapping) throw new TemplateError('not all arguments converted during string formatting');
  }
}

/** @param format - a str or markup, which escapes the values */
export function formatPercent(format: Value, value: Value, budget: Budget): Value {
  const values = new Values(value);
  const text = textOf(format) ?? '';
  const isMarkup = format instanceof Markup;
  const result = text.replace(directive, (all: string, name?: string, flags = '', width = '', precision?: string, type?: string) => {
    if (type === undefined) throw new TemplateError('incomplete format');
    const places = width === '*' ? needInt(values.next(), 'the width of a format') : Number(width);
    const digits =
      precision === '*' ? needInt(values.next(), 'the precision of a format') : precision === undefined ? null : Number(precision);
    if (type === '%') {
      if (all === '%%') return '%';
      throw new TemplateError(`unsupported format ${all}`);
    }
    budget.reserve(Math.abs(places) + (digits ?? 0));
    const isLeft = flags.includes('-') || places < 0;
    const item = name === undefined ? values.next() : values.named(name);
    return pad(convert(type, item, flags, digits, isMarkup, budget), {
      flags,
      isLeft,
      width: Math.abs(places),
      isNumber: !/[csra]/.test(type),
    });
  });
  values.end();
  budget.take(result);
  return isMarkup ? new Markup(result) : result;
}

function convert(type: string, value: Value, flags: string, digits: number | null, isMarkup: boolean, budget: Budget): string {
  const written = (text: string) => cut(isMarkup && !(value instanceof Markup && type === 's') ? escapeHtml(text) : text, digits);
  switch (type) {
    case 's':
      return written(toText(value, budget));
    case 'r':
      return written(repr(value, budget));
    case 'a':
      return written(repr(value, budget).replace(/[^\0-\x7f]/gu, (character) => escapeCode(character.codePointAt(0) ?? 0)));
    case 'c':
      return character(value);
    case 'd':
    case 'i':
    case 'u':
      return signed(whole(value, type, true), flags, (number) => String(number).padStart(digits ?? 0, '0'));
    case 'x':
    case 'X':
    case 'o':
      return signed(whole(value, type, false), flags, (number) => based(number, type, flags, digits ?? 0));
    default:
      if (!/[eEfFgG]/.test(type)) throw new TemplateError(`unsupported format character '${type}'`);
      return real(value, type, flags, digits ?? 6);
  }
}

function cut(text: string, digits: number | null): string {
  return digits === null ? text : Array.from(text).slice(0, digits).join('');
}

function character(value: Value): string {
  const text = textOf(value);
  if (text !== undefined && characters(text).length === 1) return text;
  if (typeof value === 'number' && value >= 0 && value <= 0x10ffff) return String.fromCodePoint(value);
  throw new TemplateError('%c requires int or char');
}

function whole(value: Value, type: string, takesFloat: boolean): number {
  const number = toNumber(value);
  if (number === undefined || (value instanceof Float && !takesFloat)) {
    throw new TemplateError(`%${type} format: a number is required, not ${typeName(value)}`);
  }
  return integer(Math.trunc(number));
}

function based(number: number, type: string, flags: string, digits: number): string {
  const text = number.toString(type === 'o' ? 8 : 16).padStart(digits, '0');
  const prefixed = flags.includes('#') ? `0${type.toLowerCase()}${text}` : text;
  return type === 'X' ? prefixed.toUpperCase() : prefixed;
}

function real(value: Value, type: string, flags: string, digits: number): string {
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`must be real number, not ${typeName(value)}`);
  return signed(number, flags, (size) => realText(size, type, digits, flags.includes('#')));
}

/** A non-negative float with format `e`, `f` or `g`, in capitals for `E`, `F` and `G`. */
export function realText(size: number, type: string, digits: number, keepsZeros: boolean): string {
  const kind = type.toLowerCase();
  let text: string;
  if (!Number.isFinite(size)) text = Number.isNaN(size) ? 'nan' : 'inf';
  else if (kind === 'f') text = fixed(size, digits);
  else text = kind === 'e' ? scientific(size, digits) : general(size, digits, keepsZeros);
  return type === kind ? text : text.toUpperCase();
}

function signed(number: number, flags: string, write: (size: number) => string): string {
  const isNegative = number < 0 || Object.is(number, -0);
  return (isNegative ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '') + write(Math.abs(number));
}

interface Padding {
  readonly flags: string;
  readonly isLeft: boolean;
  readonly width: number;
  readonly isNumber: boolean;
}

function pad(text: string, { flags, isLeft, width, isNumber }: Padding): string {
  const missing = width - characters(text).length;
  if (missing <= 0) return text;
  if (isLeft) return text + ' '.repeat(missing);
  if (!isNumber || !flags.includes('0') || /^[-+ ]?(?:inf|nan)$/i.test(text)) return ' '.repeat(missing) + text;
  const [, prefix = '', rest = ''] = /^([-+ ]?(?:0[xXoO])?)(.*)$/s.exec(text) ?? [];
  return prefix + '0'.repeat(missing) + rest;
}
