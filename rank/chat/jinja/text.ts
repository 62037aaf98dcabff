/** `str()` and `repr()` of template values, and the texts of floats. */
import type { Budget } from './budget.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { Float, Markup, Tuple, typeName, type Value } from './values.ts';

/** `str(value)`; empty for Undefined. */
export function toText(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value;
  if (value instanceof Markup) return value.text;
  return value === undefined ? '' : repr(value, budget);
}

/** `repr(value)`. @throws TemplateError for a value whose text would hold a memory address. */
export function repr(value: Value, budget: Budget): string {
  budget.step();
  if (value === undefined) return 'Undefined';
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return budget.take(quote(value));
  if (value instanceof Float) return floatText(value.value);
  if (value instanceof Markup) return budget.take(`Markup(${quote(value.text)})`);
  if (Array.isArray(value)) {
    const items = Array.from(value, (item) => repr(item, budget)).join(', ');
    if (value instanceof Tuple) return budget.take(`(${items}${value.length === 1 ? ',' : ''})`);
    return budget.take(`[${items}]`);
  }
  if (value instanceof Dict) {
    const items = Array.from(value.entries(), ([key, item]) => `${repr(key, budget)}: ${repr(item, budget)}`);
    return budget.take(`{${items.join(', ')}}`);
  }
  const text = value.text((item) => repr(item, budget));
  if (text === null) throw new TemplateError(`a ${typeName(value)} has no text that is the same in every run`);
  return budget.take(text);
}

const namedEscapes: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' };

/** Whether `str.isprintable` holds for a character; unassigned ones differ by the version of Unicode. */
export const unprintable = /[\p{C}\p{Z}]/u;

/** `repr` of a str. */
export function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\p{C}\p{Z}]/gu, (character) => {
    if (character === ' ') return character;
    return namedEscapes[character] ?? escapeCode(character.codePointAt(0) ?? 0);
  });
  return mark + (mark === "'" ? escaped.replaceAll("'", "\\'") : escaped) + mark;
}

/** Python's backslash escape of a code point. */
export function escapeCode(code: number): string {
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}

/** Python's shortest text of a float, with an exponent below 1e-4 and from 1e16. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const [mantissa = '', exponentText = ''] = Math.abs(value).toExponential().split('e');
  const digits = mantissa.replace('.', '');
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) return sign + mantissa + exponentOf(exponent);
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  return `${sign}${digits.slice(0, exponent + 1).padEnd(exponent + 1, '0')}.${digits.slice(exponent + 1) || '0'}`;
}

/** An exponent of two digits at least. */
export function exponentOf(exponent: number): string {
  return `e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
}
