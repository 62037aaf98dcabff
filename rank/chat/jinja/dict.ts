/** Python's dict: insertion order, and keys that are equal as Python's are. */
import { TemplateError } from './errors.ts';
import { Float, Instance, Markup, Tuple, typeName, type Value } from './values.ts';

/** What the keys of Python's 1, 1.0 and True have in common. */
type KeyId = string | number | null | symbol | Instance;

const undefinedKey = Symbol('undefined');

/** @throws TemplateError for an unhashable key. */
export function keyId(key: Value): KeyId {
  if (typeof key === 'string') return key.startsWith('\0') ? `\0s${key}` : key;
  if (typeof key === 'number' || key === null) return key;
  if (typeof key === 'boolean') return Number(key);
  if (key === undefined) return undefinedKey;
  if (key instanceof Float) return key.value;
  if (key instanceof Markup) return keyId(key.text);
  if (key instanceof Tuple) return `\0t${JSON.stringify(Array.from(key, tupleItemId))}`;
  if (key instanceof Instance && !/^dict_(?:keys|items)$/.test(key.typeName)) return key;
  throw new TemplateError(`unhashable type: '${typeName(key)}'`);
}

function tupleItemId(item: Value): unknown {
  const id = keyId(item);
  if (id instanceof Instance) throw new TemplateError(`a ${id.typeName} inside a tuple as key is not supported`);
  return typeof id === 'symbol' ? [] : typeof id === 'number' ? `n${id}` : id && `s${id}`;
}

export class Dict {
  readonly #entries = new Map<KeyId, readonly [key: Value, value: Value]>();

  static from(entries: Iterable<readonly [Value, Value]>): Dict {
    const dict = new Dict();
    for (const [key, value] of entries) dict.set(key, value);
    return dict;
  }

  get size(): number {
    return this.#entries.size;
  }

  has(key: Value): boolean {
    return this.#entries.has(keyId(key));
  }

  get(key: Value): Value {
    return this.#entries.get(keyId(key))?.[1];
  }

  /** Sets a value; a key that is there keeps its first form. */
  set(key: Value, value: Value): void {
    const id = keyId(key);
    this.#entries.set(id, [this.#entries.get(id)?.[0] ?? key, value]);
  }

  entries(): Iterable<readonly [key: Value, value: Value]> {
    return this.#entries.values();
  }

  *keys(): Generator<Value, void, undefined> {
    for (const [key] of this.#entries.values()) yield key;
  }
}
