/** Template values with Python's semantics: truth, equality, order, text. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';

/** Python's float: 2.0 prints differently from 2. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** Python's tuple, which prints differently from a list. */
export class Tuple extends Array<Value> {}

/** The result of `namespace()`, the only value whose attributes a template may set. */
export class Namespace {
  readonly attributes: Map<Value, Value>;

  constructor(attributes: Map<Value, Value>) {
    this.attributes = attributes;
  }
}

/** The `loop` of a for loop. */
export interface Loop {
  readonly kind: 'loop';
  readonly items: readonly Value[];
  index0: number;
}

/** Arguments of a call. */
export interface Arguments {
  readonly positional: readonly Value[];
  readonly keywords: ReadonlyMap<string, Value>;
}

/** A function or macro. */
export class Callable {
  readonly call: (args: Arguments) => Value;

  constructor(call: (args: Arguments) => Value) {
    this.call = call;
  }
}

/** `undefined` is Jinja's Undefined, `null` Python's None, a number an int, a Map a dict. */
export type Value =
  | undefined
  | null
  | boolean
  | number
  | string
  | Float
  | Namespace
  | Loop
  | Callable
  | Value[]
  | Tuple
  | Map<Value, Value>;

/**
 * A JSON value as a template value. Non-integers and numbers beyond 2^53 are floats; 1.0 is an int, as JavaScript
 * cannot tell it from 1.
 */
export function fromJson(json: unknown): Value {
  if (typeof json === 'number') return Number.isSafeInteger(json) ? json : new Float(json);
  if (Array.isArray(json)) return json.map(fromJson);
  if (typeof json !== 'object' || json === null) return json as Value;
  return new Map(Object.entries(json).map(([key, value]) => [key, fromJson(value)]));
}

/** Python's name of a value's type, for errors. */
export function typeName(value: Value): string {
  if (value === undefined) return 'Undefined';
  if (value === null) return 'NoneType';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (typeof value === 'string') return 'str';
  if (value instanceof Float) return 'float';
  if (value instanceof Tuple) return 'tuple';
  if (Array.isArray(value)) return 'list';
  if (value instanceof Map) return 'dict';
  if (value instanceof Namespace) return 'Namespace';
  return value instanceof Callable ? 'function' : 'LoopContext';
}

export function isTrue(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  return Boolean(value);
}

/** The number that a value is in arithmetic; `undefined` if it is none. */
export function toNumber(value: Value): number | undefined {
  if (value instanceof Float) return value.value;
  if (typeof value === 'boolean') return Number(value);
  return typeof value === 'number' ? value : undefined;
}

export function isEqual(a: Value, b: Value): boolean {
  const [x, y] = [toNumber(a), toNumber(b)];
  if (x !== undefined || y !== undefined) return x === y;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a instanceof Tuple === b instanceof Tuple && a.length === b.length && a.every((item, i) => isEqual(item, b[i]));
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && isEqual(value, b.get(key)));
  }
  return a === b;
}

/** Negative, zero or positive, as `a` sorts before, with or after `b`. */
export function compare(a: Value, b: Value, operator = '<'): number {
  const [x, y] = [toNumber(a), toNumber(b)];
  if (x !== undefined && y !== undefined) return x - y;
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b);
  if (Array.isArray(a) && Array.isArray(b)) {
    const at = a.findIndex((item, i) => i >= b.length || !isEqual(item, b[i]));
    return at < 0 || at >= b.length ? a.length - b.length : compare(a[at], b[at], operator);
  }
  throw new TemplateError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** Order by code points, as in Python; UTF-16 order puts U+FFFF after U+10000. */
function compareText(a: string, b: string): number {
  let i = 0;
  while (i < a.length && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  if (i === a.length || i === b.length) return a.length - b.length;
  if (i > 0 && /[\udc00-\udfff]/.test(a.charAt(i)) && /[\ud800-\udbff]/.test(a.charAt(i - 1))) i--;
  return (a.codePointAt(i) ?? 0) - (b.codePointAt(i) ?? 0);
}

/** The characters of a text, as Python counts them. */
export function characters(text: string): readonly string[] | string {
  return /[\ud800-\udfff]/.test(text) ? Array.from(text) : text;
}

/** Items that a for loop iterates over. */
export function iterate(value: Value): readonly Value[] {
  if (value === undefined) return [];
  if (Array.isArray(value)) return value;
  if (typeof value === 'string') return Array.from(value);
  if (value instanceof Map) return [...value.keys()];
  throw new TemplateError(`'${typeName(value)}' object is not iterable`);
}

/** `str(value)`; empty for Undefined. */
export function toText(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value;
  return value === undefined ? '' : repr(value, budget);
}

/** `repr(value)`. */
function repr(value: Value, budget: Budget): string {
  budget.step();
  if (value === undefined) return 'Undefined';
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return budget.take(quote(value));
  if (value instanceof Float) return floatText(value.value);
  if (Array.isArray(value)) {
    const items = value.map((item) => repr(item, budget)).join(', ');
    if (value instanceof Tuple) return budget.take(`(${items}${value.length === 1 ? ',' : ''})`);
    return budget.take(`[${items}]`);
  }
  if (value instanceof Map) {
    return budget.take(`{${[...value].map(([key, item]) => `${repr(key, budget)}: ${repr(item, budget)}`).join(', ')}}`);
  }
  throw new TemplateError(`a ${typeName(value)} has no text`);
}

const namedEscapes: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' };

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\p{C}\p{Z}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (character === ' ') return character;
    if (namedEscapes[character] !== undefined) return namedEscapes[character];
    const hex = code.toString(16);
    if (code < 0x100) return `\\x${hex.padStart(2, '0')}`;
    return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
  });
  return mark + (mark === "'" ? escaped.replaceAll("'", "\\'") : escaped) + mark;
}

/** Python's shortest text of a float, with an exponent below 1e-4 and from 1e16. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const [digits = '', exponentText = ''] = value.toExponential().split('e');
  const exponent = Number(exponentText);
  if (value === 0 || (exponent >= -4 && exponent < 16)) {
    const fixed = Number.isInteger(value)
      ? `${BigInt(value)}.0`
      : value.toFixed(Math.max(1, digits.replace(/[-.]/g, '').length - 1 - exponent));
    return fixed;
  }
  return `${digits}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
}
