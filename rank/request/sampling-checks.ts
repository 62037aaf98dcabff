/** Checks of sampling parameters that are more than a number in a range. */
import { type Check, checked, integerIn, isObject, numberIn } from '../../protocol/checks.ts';
import { type NdsError, unexpected } from '../../protocol/errors.ts';

export const maxInt32 = 2 ** 31 - 1;
const maxSeed = 2n ** 64n - 1n;

/** Error for a value that parameter `name` does not accept. */
export function refuse(name: string, expected: string, value: unknown): NdsError {
  return unexpected('ERR_REQUEST', expected, name, value);
}

/** An integer, `minimum` … 2^31 - 1. */
export function integerFrom(minimum: number): Check<number> {
  return integerIn(minimum, maxInt32, `an integer of at least ${minimum}, below 2^31,`);
}

/** An array of texts without lone surrogates, each accepted by `isValid`. With `orOne` one text is an array of one. */
export function texts(expected: string, isValid: (text: string) => boolean, orOne = false): Check<readonly string[]> {
  const isText = (text: unknown) => typeof text === 'string' && isValid(text) && !/\p{Surrogate}/u.test(text);
  return {
    expected,
    read: (value) => {
      const list = orOne && typeof value === 'string' ? [value] : value;
      return Array.isArray(list) && list.every(isText) ? [...list] : undefined;
    },
  };
}

const tokenId = integerIn(0, maxInt32);
const isTokenId = (id: unknown) => tokenId.read(id) !== undefined;

/** Token ids from an array or typed array, without duplicates; `checkAgainstModel` checks their range. */
export function tokenIds(fewest: 0 | 1): Check<readonly number[]> {
  return {
    expected: `an array of ${fewest === 0 ? '' : 'at least one of '}token ids`,
    read: (value) => {
      const isList = Array.isArray(value) || value instanceof Int32Array || value instanceof Uint32Array;
      if (!isList || value.length < fewest) return undefined;
      // Array.from fills holes, which `every` would skip.
      const ids = Array.from<number>(value);
      return ids.every(isTokenId) ? [...new Set(ids)] : undefined;
    },
  };
}

const bias = numberIn(-100, 100);

/** Biases by token id, from an object or a map. @throws NdsError `ERR_REQUEST` naming the token whose bias is wrong. */
export const logitBias: Check<readonly (readonly [tokenId: number, bias: number])[]> = {
  expected: 'an object or map from token ids to numbers from -100 to 100',
  read: (value) => {
    if (!isObject(value) || ArrayBuffer.isView(value)) return undefined;
    const biases = new Map<number, number>();
    for (const [key, added] of value instanceof Map ? value : Object.entries(value)) {
      const id = typeof key === 'string' && /^(0|[1-9]\d*)$/.test(key) ? Number(key) : key;
      if (!isTokenId(id) || biases.has(id)) throw refuse('logitBias', `${logitBias.expected}, each token once,`, key);
      biases.set(id, checked(added, bias, `logitBias[${id}]`, 'ERR_REQUEST'));
    }
    return [...biases];
  },
};

/** `0 … 2^64 - 1`: a number where it is a safe integer, else a bigint. */
export const seed: Check<number | bigint> = {
  expected: 'an integer from 0 to 2^64 - 1 (a bigint beyond 2^53 - 1)',
  read: (value) => {
    if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) return undefined;
    const exact = BigInt(value as number | bigint);
    if (exact < 0n || exact > maxSeed) return undefined;
    return exact <= Number.MAX_SAFE_INTEGER ? Number(value) : exact;
  },
};
