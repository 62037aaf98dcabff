/** Gangs of threads that run scripts of collectives, and plain TypeScript references of their results. */
import { native } from '../../rank/native.ts';

/** One call of a rank on its communicator; see native/addon/testing/comm.cc. */
export type Op =
  | { op: 'setStep'; step: number }
  | { op: 'allReduce'; count: number; numRoots: number[]; merges: number[]; data: Float32Array }
  | { op: 'exchangeRows'; numRows: number; rowBytes: number; stride: number; owner: number[]; data: Uint8Array }
  | { op: 'allGather'; counts: number[]; data: Uint8Array }
  | { op: 'agree'; step: number; planHash: number; outputHash: number }
  | { op: 'abort'; rank: number }
  | { op: 'close' }
  | { op: 'reopen' }
  | { op: 'die' };

export interface Outcome {
  readonly bytes?: Uint8Array;
  readonly code?: string;
  readonly message?: string;
}

export interface RankResult {
  readonly outcomes: Outcome[];
  readonly exchangedBytes: number;
  readonly allReduceBytes: number;
  readonly waitSeconds: number;
}

export interface GangOptions {
  readonly worldSize: number;
  readonly stepTimeoutMs: number;
  readonly startupTimeoutMs: number;
}

interface CommTesting {
  commSelfTest(options: GangOptions, scripts: Op[][]): RankResult[];
  commRank(options: GangOptions & { rank: number; shmFd: number }, script: Op[]): RankResult;
}

export const testing = (): CommTesting => native().testing as unknown as CommTesting;

/** Runs `scripts[r]` on rank r, one thread each. Default timeouts are far longer than any test. */
export function runGang(scripts: Op[][], timeouts: Partial<GangOptions> = {}): RankResult[] {
  return testing().commSelfTest({ worldSize: scripts.length, stepTimeoutMs: 30_000, startupTimeoutMs: 30_000, ...timeouts }, scripts);
}

/** Deterministic random numbers in [0, 1) (mulberry32). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` floats of very different magnitudes, so that another order of additions yields other bits. */
export function randomFloats(next: () => number, count: number): Float32Array {
  return Float32Array.from({ length: count }, () => (next() - 0.5) * 2 ** Math.floor(next() * 24 - 12));
}

export function randomBytes(next: () => number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, () => next() * 256);
}

/** An all-reduce over the fixed reduction tree: the op of each rank, and the sum that all must receive. */
export interface ReduceCase {
  readonly ops: Op[];
  readonly expected: Float32Array;
}

/**
 * `numChunks` random partial sums, of which rank r of N owns ⌊rC/N⌋ … ⌊(r+1)C/N⌋. Node (l, i) of the tree covers chunks
 * ⌊iC/2^l⌋ … ⌊(i+1)C/2^l⌋; a rank contributes the sums of the largest nodes that it owns entirely.
 */
export function reduceCase(next: () => number, worldSize: number, numChunks: number, count: number): ReduceCase {
  const chunks = Array.from({ length: numChunks }, () => randomFloats(next, count));
  const ownerOf = (chunk: number): number => {
    let rank = 0;
    while (Math.floor(((rank + 1) * numChunks) / worldSize) <= chunk) rank++;
    return rank;
  };
  const roots: Float32Array[][] = Array.from({ length: worldSize }, () => []);
  const merges: number[] = [];
  // Returns the sum of a node, null if it is empty. A node whose rank does not own the parent is a root.
  const visit = (level: number, index: number, ownedAbove: boolean): Float32Array | null => {
    const begin = Math.floor((index * numChunks) / 2 ** level);
    const end = Math.floor(((index + 1) * numChunks) / 2 ** level);
    if (begin === end) return null;
    const owned = ownerOf(begin) === ownerOf(end - 1);
    let sum: Float32Array | null = chunks[begin] ?? null;
    if (end - begin > 1) {
      const lower = visit(level + 1, 2 * index, owned);
      const upper = visit(level + 1, 2 * index + 1, owned);
      sum = lower !== null && upper !== null ? lower.map((x, i) => x + (upper[i] as number)) : (lower ?? upper);
      if (!owned && lower !== null && upper !== null) (merges[merges.length - 1] as number)++;
    }
    if (owned && !ownedAbove && sum !== null) {
      roots[ownerOf(begin)]?.push(sum);
      merges.push(0);
    }
    return sum;
  };
  const expected = visit(0, 0, false) as Float32Array;
  const numRoots = roots.map((own) => own.length);
  const ops = roots.map((own): Op => {
    const data = new Float32Array(own.length * count);
    own.forEach((root, i) => void data.set(root, i * count));
    return { op: 'allReduce', count, numRoots, merges, data };
  });
  return { ops, expected };
}

/** Rank r contributes `counts[r]` random bytes. */
export function gatherCase(next: () => number, counts: number[]): { ops: Op[]; expected: Uint8Array } {
  const parts = counts.map((count) => randomBytes(next, count));
  const ops = parts.map((data): Op => ({ op: 'allGather', counts, data }));
  return { ops, expected: Uint8Array.from(parts.flatMap((part) => [...part])) };
}

/** Random rows on every rank; all must end with the owner's row, and the bytes between rows must not change. */
export function rowsCase(next: () => number, worldSize: number, numRows: number, rowBytes: number, stride: number, owner: number[]) {
  const data = Array.from({ length: worldSize }, () => randomBytes(next, numRows * stride));
  const expected = data.map((own) => {
    const rows = own.slice();
    owner.forEach((rank, i) => void rows.set((data[rank] as Uint8Array).subarray(i * stride, i * stride + rowBytes), i * stride));
    return rows;
  });
  const ops = data.map((own): Op => ({ op: 'exchangeRows', numRows, rowBytes, stride, owner, data: own }));
  return { ops, expected };
}
