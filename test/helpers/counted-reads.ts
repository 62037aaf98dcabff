/** Arrays that count reads of their elements. */

/** Wraps an array; `numReads` is the number of elements read through `values`. */
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
