/** An array that counts how often its elements are read. */

/** Wraps an array; `numReads` says how many elements were read through `values` so far. */
export function countReads(array: readonly number[]): { values: readonly number[]; numReads: () => number } {
  let numReads = 0;
  const values = new Proxy(array, {
    get(target, key, receiver) {
      if (typeof key === 'string' && /^\d+$/.test(key)) numReads++;
      return Reflect.get(target, key, receiver);
    },
  });
  return { values, numReads: () => numReads };
}
