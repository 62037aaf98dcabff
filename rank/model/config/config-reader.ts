/** Typed access to the keys of a configuration file. */
import { isObject } from '../../../protocol/checks.ts';
import { describeJson, type NdsError, type NdsErrorCode, unexpected } from '../../../protocol/errors.ts';
import type { JsonObject } from '../json.ts';

/** Reads keys of one JSON object; `null` counts as absent, as mostly in Hugging Face. */
export class ConfigReader {
  readonly file: string;
  readonly #object: JsonObject;
  readonly #prefix: string;

  /** `prefix` is the path of keys that leads to `object`, e.g. `rope_scaling.`. */
  constructor(file: string, object: JsonObject, prefix = '') {
    this.file = file;
    this.#object = object;
    this.#prefix = prefix;
  }

  /** The unchecked value; `undefined` when the key is absent. */
  raw(key: string): unknown {
    return Object.hasOwn(this.#object, key) ? this.#object[key] : undefined;
  }

  keys(): string[] {
    return Object.keys(this.#object);
  }

  /** Whether the key is present, even as `null`. */
  hasKey(key: string): boolean {
    return this.raw(key) !== undefined;
  }

  /** Whether the key has a value other than `null`. */
  has(key: string): boolean {
    return (this.raw(key) ?? null) !== null;
  }

  /** Error that names `key` and the expected value. */
  wrong(key: string, expected: string, code: NdsErrorCode = 'ERR_CONFIG'): NdsError {
    return unexpected(code, expected, `${this.#prefix}${key} in ${this.file}`, this.raw(key), describeJson);
  }

  /**
   * An integer, `minimum` … `maximum`; required without `fallback`.
   * @throws NdsError `ERR_CONFIG`, or `ERR_UNSUPPORTED` above `maximum`.
   */
  integer(key: string, minimum: number, maximum: number, fallback?: number): number {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.raw(key);
    if (!Number.isSafeInteger(value) || (value as number) < minimum) throw this.wrong(key, `an integer of at least ${minimum}`);
    if ((value as number) > maximum) throw this.wrong(key, `an integer of at most ${maximum}`, 'ERR_UNSUPPORTED');
    return value as number;
  }

  /** A finite number above `bound`; required without `fallback`. */
  numberAbove(key: string, bound: number, fallback?: number): number {
    if (!this.has(key) && fallback !== undefined) return fallback;
    const value = this.raw(key);
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= bound) throw this.wrong(key, `a number above ${bound}`);
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    if (!this.has(key)) return fallback;
    const value = this.raw(key);
    if (typeof value !== 'boolean') throw this.wrong(key, 'true or false');
    return value;
  }

  /** The object below `key`, or `undefined` when it is absent. */
  section(key: string): ConfigReader | undefined {
    if (!this.has(key)) return undefined;
    const value = this.raw(key);
    if (!isObject(value)) throw this.wrong(key, 'an object');
    return new ConfigReader(this.file, value, `${this.#prefix}${key}.`);
  }
}
