/** The reduction tree of partial sums performs the same additions on any number of ranks. */
import { test } from 'tap';
import { native } from '../../../rank/native.ts';

interface Tree {
  readonly local: readonly (readonly number[])[];
  readonly numRoots: readonly number[];
  readonly join: readonly number[];
}

const reductionTree = (numChunks: number, worldSize: number): Tree =>
  (native().testing.reductionTree as (options: object) => Tree)({ numChunks, worldSize });

/** Assigns an id to every distinct sum of two sums: equal ids mean equal trees of additions. */
class Sums {
  readonly #ids = new Map<string, number>();

  chunk(index: number): number {
    return this.#id(`chunk ${index}`);
  }

  add(lower: number, upper: number): number {
    return this.#id(`${lower} + ${upper}`);
  }

  #id(key: string): number {
    const id = this.#ids.get(key) ?? this.#ids.size;
    this.#ids.set(key, id);
    return id;
  }
}

/** Pushes the inputs one by one, and adds the two topmost `merges[i]` times after input i. */
function runStack(sums: Sums, inputs: readonly number[], merges: readonly number[]): number[] {
  const stack: number[] = [];
  inputs.forEach((input, i) => {
    stack.push(input);
    for (let n = merges[i] ?? Number.NaN; n > 0; n--) {
      const upper = stack.pop() as number;
      stack.push(sums.add(stack.pop() as number, upper));
    }
  });
  return stack;
}

/**
 * The definition: node (level, index) covers chunks ⌊index · C / 2^level⌋ …; a node is the sum of its non-empty
 * children.
 */
function nodeSum(sums: Sums, numChunks: number, level: number, index: number): number | undefined {
  const begin = Math.floor((index * numChunks) / 2 ** level);
  const end = Math.floor(((index + 1) * numChunks) / 2 ** level);
  if (begin === end) return undefined;
  if (end - begin === 1) return sums.chunk(begin);
  const lower = nodeSum(sums, numChunks, level + 1, index * 2);
  const upper = nodeSum(sums, numChunks, level + 1, index * 2 + 1);
  return lower === undefined || upper === undefined ? (lower ?? upper) : sums.add(lower, upper);
}

test('any number of ranks performs the additions of the definition', async (t) => {
  const wrong: string[] = [];
  for (let numChunks = 1; numChunks <= 80; numChunks++) {
    const sums = new Sums();
    const expected = nodeSum(sums, numChunks, 0, 0);
    for (let worldSize = 1; worldSize <= numChunks; worldSize++) {
      const tree = reductionTree(numChunks, worldSize);
      const roots: number[] = [];
      for (let rank = 0; rank < worldSize; rank++) {
        const begin = Math.floor((rank * numChunks) / worldSize);
        const end = Math.floor(((rank + 1) * numChunks) / worldSize);
        const chunks = Array.from({ length: end - begin }, (_, i) => sums.chunk(begin + i));
        const local = runStack(sums, chunks, tree.local[rank] ?? []);
        if (local.length !== tree.numRoots[rank]) wrong.push(`${numChunks} chunks, rank ${rank} of ${worldSize}: ${local.length} roots`);
        roots.push(...local);
      }
      const joined = runStack(sums, roots, tree.join);
      if (joined.length !== 1 || joined[0] !== expected) wrong.push(`${numChunks} chunks on ${worldSize} ranks`);
    }
  }
  t.same(wrong, []);
});

test('ranks send few partial sums', async (t) => {
  t.same(reductionTree(16, 4).numRoots, [1, 1, 1, 1], 'one where a rank owns a whole node');
  t.same(reductionTree(9, 3).numRoots, [2, 2, 1]);
  let most = 0;
  for (let numChunks = 1; numChunks <= 128; numChunks++) {
    for (let worldSize = 1; worldSize <= Math.min(16, numChunks); worldSize++)
      most = Math.max(most, ...reductionTree(numChunks, worldSize).numRoots);
  }
  t.equal(most, 6);
});
