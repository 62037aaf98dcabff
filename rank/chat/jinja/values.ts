/** Template values: Python's types that JavaScript lacks, their names and their truth. */
import type { Budget } from './budget.ts';
import { Dict } from './dict.ts';

/** Python's float: 2.0 prints differently from 2. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** Text that is HTML already: what is joined to it is escaped, also where nothing else is. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** Python's tuple, which prints differently from a list. */
export class Tuple extends Array<Value> {}

/** Arguments of a call. */
export interface Arguments {
  readonly positional: readonly Value[];
  readonly keywords: ReadonlyMap<string, Value>;
}

export const noArguments: Arguments = { positional: [], keywords: new Map() };

/** An object of another of Python's types. */
export abstract class Instance {
  abstract readonly typeName: string;

  /** The attribute; `undefined` where there is none. */
  attribute(_name: string, _budget: Budget): Value {
    return undefined;
  }

  /** The items that it iterates over; null if it is not iterable. */
  iterate(): Iterable<Value> | null {
    return null;
  }

  /** Python's `len()`; null if it has none. */
  get size(): number | null {
    return null;
  }

  /** `repr()`; null for one that holds a memory address in Python. */
  text(_repr: (value: Value) => string): string | null {
    return null;
  }
}

/** A function, a bound method or a macro. */
export class Callable extends Instance {
  readonly typeName: string;
  readonly call: (args: Arguments) => Value;

  constructor(call: (args: Arguments) => Value, typeName = 'function') {
    super();
    this.call = call;
    this.typeName = typeName;
  }
}

/** The result of `namespace()`, the only value whose attributes a template may set. */
export class Namespace extends Instance {
  readonly typeName = 'Namespace';
  readonly attributes: Dict;

  constructor(attributes: Dict) {
    super();
    this.attributes = attributes;
  }

  override attribute(name: string): Value {
    return this.attributes.get(name);
  }

  override text(repr: (value: Value) => string): string {
    return `<Namespace ${repr(this.attributes)}>`;
  }
}

/** `undefined` is Jinja's Undefined, `null` Python's None, a number an int. */
export type Value = undefined | null | boolean | number | string | Float | Markup | Instance | Dict | Value[] | Tuple;

/**
 * A JSON value as a template value. Non-integers and numbers beyond 2^53 are floats; 1.0 is an int, as JavaScript
 * cannot tell it from 1.
 */
export function fromJson(json: unknown): Value {
  if (typeof json === 'number') return Number.isSafeInteger(json) ? json : new Float(json);
  if (Array.isArray(json)) return json.map(fromJson);
  if (typeof json !== 'object' || json === null) return json as Value;
  const dict = new Dict();
  for (const [key, value] of Object.entries(json)) dict.set(key, fromJson(value));
  return dict;
}

/** Python's name of a value's type, for errors. */
export function typeName(value: Value): string {
  if (value === undefined) return 'Undefined';
  if (value === null) return 'NoneType';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (typeof value === 'string') return 'str';
  if (value instanceof Float) return 'float';
  if (value instanceof Markup) return 'Markup';
  if (value instanceof Tuple) return 'tuple';
  if (Array.isArray(value)) return 'list';
  return value instanceof Dict ? 'dict' : value.typeName;
}

export function isTrue(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Markup) return value.text !== '';
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Dict || value instanceof Instance) return value.size !== 0;
  return Boolean(value);
}

/** The number that a value is in arithmetic; `undefined` if it is none. */
export function toNumber(value: Value): number | undefined {
  if (value instanceof Float) return value.value;
  if (typeof value === 'boolean') return Number(value);
  return typeof value === 'number' ? value : undefined;
}

/** The int that a bool or an int is; `undefined` for others. */
export function toInt(value: Value): number | undefined {
  return value instanceof Float ? undefined : toNumber(value);
}

/** The characters of a str or of markup; `undefined` for others. */
export function textOf(value: Value): string | undefined {
  return value instanceof Markup ? value.text : typeof value === 'string' ? value : undefined;
}

/** The characters of a text, as Python counts them. */
export function characters(text: string): readonly string[] | string {
  return /[\ud800-\udfff]/.test(text) ? Array.from(text) : text;
}
