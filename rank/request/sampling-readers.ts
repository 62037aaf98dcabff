/** Readers of single sampling parameters: any value in, a checked one out, or a refusal by name. */
import { describe } from '../../protocol/describe.ts';
import { NdsError } from '../../protocol/errors.ts';

export type Reader<T> = (value: unknown) => T;

export const maxInt32 = 2 ** 31 - 1;
const maxSeed = 2n ** 64n - 1n;

/** The error of a value that parameter `name` does not take. */
export function refuse(name: string, expected: string, value: unknown): NdsError {
  return new NdsError('ERR_REQUEST', `Expected ${expected} for ${name} but received ${describe(value)}`);
}

export function number(name: string, expected: string, isValid: (value: number) => boolean): Reader<number> {
  return (value) => {
    if (typeof value !== 'number' || !isValid(value)) throw refuse(name, expected, value);
    return value;
  };
}

/** A number from `minimum` to `maximum`. */
export function numberIn(name: string, minimum: number, maximum: number): Reader<number> {
  return number(name, `a number from ${minimum} to ${maximum}`, (value) => value >= minimum && value <= maximum);
}

/** An integer from `minimum` to `maximum`, or of at least `minimum`. */
export function integer(name: string, minimum: number, maximum: number = maxInt32): Reader<number> {
  const expected = maximum === maxInt32 ? `an integer of at least ${minimum}, below 2^31,` : `an integer from ${minimum} to ${maximum}`;
  return number(name, expected, (value) => Number.isInteger(value) && value >= minimum && value <= maximum);
}

export function boolean(name: string): Reader<boolean> {
  return (value) => {
    if (typeof value !== 'boolean') throw refuse(name, 'true or false', value);
    return value;
  };
}

/** `reader`, or null as it is. */
export function orNull<T>(reader: Reader<T>): Reader<T | null> {
  return (value) => (value === null ? null : reader(value));
}

/** An array of texts, each of which `isValid` takes and without lone surrogates. One text is an array of one where `orOne`. */
export function texts(name: string, expected: string, isValid: (text: string) => boolean, orOne = false): Reader<readonly string[]> {
  const isText = (text: unknown) => typeof text === 'string' && isValid(text) && !/\p{Surrogate}/u.test(text);
  return (value) => {
    const list = orOne && typeof value === 'string' ? [value] : value;
    if (!Array.isArray(list) || !list.every(isText)) throw refuse(name, expected, value);
    return [...list];
  };
}

const isTokenId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) <= maxInt32;

/** Token ids in any of the usual forms, each once. Whether the model has them is for `checkAgainstModel`. */
export function tokenIds(name: string, fewest: 0 | 1): Reader<readonly number[]> {
  const expected = `an array of ${fewest === 0 ? '' : 'at least one of '}token ids`;
  return (value) => {
    const isList = Array.isArray(value) || value instanceof Int32Array || value instanceof Uint32Array;
    if (!isList || value.length < fewest) throw refuse(name, expected, value);
    // Not every, which skips holes.
    const ids = Array.from<number>(value);
    if (!ids.every(isTokenId)) throw refuse(name, expected, value);
    return [...new Set(ids)];
  };
}

/** Biases by token id, of an object or a map. */
export function readLogitBias(value: unknown): readonly (readonly [tokenId: number, bias: number])[] {
  const expected = 'an object or map from token ids to numbers from -100 to 100';
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
  if (!isObject) throw refuse('logitBias', expected, value);
  const biases = new Map<number, number>();
  for (const [key, bias] of value instanceof Map ? value : Object.entries(value)) {
    const id = typeof key === 'string' && /^(0|[1-9]\d*)$/.test(key) ? Number(key) : key;
    if (!isTokenId(id) || biases.has(id)) throw refuse('logitBias', `${expected}, each token once,`, key);
    if (typeof bias !== 'number' || !(bias >= -100 && bias <= 100)) throw refuse(`logitBias[${id}]`, 'a number from -100 to 100', bias);
    biases.set(id, bias);
  }
  return [...biases];
}

/** A number where it is a safe integer, else a bigint. */
export function readSeed(value: unknown): number | bigint {
  const isInteger = typeof value === 'bigint' || Number.isSafeInteger(value);
  if (!isInteger || BigInt(value as number | bigint) < 0n || BigInt(value as number | bigint) > maxSeed) {
    throw refuse('seed', 'an integer from 0 to 2^64 - 1 (a bigint beyond 2^53 - 1)', value);
  }
  return (value as number | bigint) <= Number.MAX_SAFE_INTEGER ? Number(value) : (value as bigint);
}
