/** Attention in plain TypeScript and double precision, and random problems. */
import type { KvCacheDtype } from '../../protocol/messages.ts';
import { type ActivationType, at, normals, type PagedAttention, rounders } from '../helpers/testing.ts';
import { throughInt8 } from './int8.ts';

/** Parameters of a problem, which is random otherwise. */
export interface Shape {
  readonly dtype: ActivationType;
  readonly kvDtype: KvCacheDtype;
  readonly headDim: number;
  readonly numHeads: number;
  readonly groupSize: number;
  readonly firstHead?: number;
  readonly blockSize?: number;
  readonly slidingWindow?: number;
  /** Query length and context length of each sequence. */
  readonly lengths: readonly (readonly [number, number])[];
  /** Standard deviation of the queries: a large one makes attention sharp. */
  readonly spread?: number;
}

type Integers = (below: number) => number;

/** A random problem of that shape; its blocks are shuffled among blocks without an owner. */
export function attentionProblem(shape: Shape, integers: Integers): PagedAttention {
  const { dtype, kvDtype, headDim, numHeads, groupSize, lengths } = shape;
  const firstHead = shape.firstHead ?? 0;
  const firstKvHead = Math.floor(firstHead / groupSize);
  const numKvHeads = Math.floor((firstHead + numHeads - 1) / groupSize) - firstKvHead + 1;
  const numTokens = lengths.reduce((sum, [query]) => sum + query, 0);
  const numKeys = lengths.reduce((sum, [, context]) => sum + context, 0);
  const round = rounders[dtype];
  const kvSize = numKeys * numKvHeads * headDim;
  const problem = {
    dtype,
    kvDtype,
    headDim,
    numHeads,
    firstHead,
    groupSize,
    firstKvHead,
    numKvHeads,
    q: normals(integers, numTokens * numHeads * headDim, shape.spread ?? 1).map(round),
    k: normals(integers, kvSize).map(round),
    v: normals(integers, kvSize).map(round),
    cuQueryLens: prefixSums(lengths.map(([query]) => query)),
    contextLens: Int32Array.from(lengths, ([, context]) => context),
    scale: Math.fround(1 / Math.sqrt(headDim)),
    slidingWindow: shape.slidingWindow ?? 0,
    stale: 1e4,
  };
  return { ...problem, ...placeBlocks(problem.contextLens, shape.blockSize ?? 32, integers) };
}

/** Random block tables for these contexts. */
export function placeBlocks(contextLens: Int32Array, blockSize: number, integers: Integers) {
  const counts = Array.from(contextLens, (length) => Math.ceil(length / blockSize));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const numBlocks = total + 3;
  const free = Array.from({ length: numBlocks }, (_, block) => block);
  const blockTables = Int32Array.from({ length: total }, () => at(free.splice(integers(free.length), 1), 0));
  return { blockSize, numBlocks, blockTables, cuBlocks: prefixSums(counts) };
}

/** Queries [begin, end) of a problem with one sequence, as a separate step. */
export function someQueries(p: PagedAttention, begin: number, end: number): PagedAttention {
  const numCached = at(p.contextLens, 0) - at(p.cuQueryLens, 1);
  const width = p.numHeads * p.headDim;
  const kvWidth = p.numKvHeads * p.headDim;
  const contextLen = numCached + end;
  return {
    ...p,
    q: p.q.slice(begin * width, end * width),
    k: p.k.slice(0, contextLen * kvWidth),
    v: p.v.slice(0, contextLen * kvWidth),
    cuQueryLens: Int32Array.of(0, end - begin),
    contextLens: Int32Array.of(contextLen),
    blockTables: p.blockTables.slice(0, Math.ceil(contextLen / p.blockSize)),
    cuBlocks: Int32Array.of(0, Math.ceil(contextLen / p.blockSize)),
  };
}

function prefixSums(values: readonly number[]): Int32Array {
  const sums = new Int32Array(values.length + 1);
  for (const [i, value] of values.entries()) sums[i + 1] = at(sums, i) + value;
  return sums;
}

/** softmax(scale · q Kᵀ) V over the keys visible to each query: `[numTokens, numHeads * headDim]`, not rounded. */
export function referenceAttention(p: PagedAttention): Float64Array {
  const out = new Float64Array(p.q.length);
  const cached = (rows: Float32Array) => (p.kvDtype === 'int8' ? throughInt8(rows, p.headDim) : rows.map(rounders[p.kvDtype]));
  const [k, v] = [cached(p.k), cached(p.v)];
  let firstKey = 0;
  for (const [seq, contextLen] of p.contextLens.entries()) {
    const begin = at(p.cuQueryLens, seq);
    const numQueries = at(p.cuQueryLens, seq + 1) - begin;
    for (let i = 0; i < numQueries; i++) {
      const position = contextLen - numQueries + i;
      const oldest = p.slidingWindow === 0 ? 0 : Math.max(0, position - p.slidingWindow + 1);
      for (let head = 0; head < p.numHeads; head++)
        attendOne({ ...p, k, v }, begin + i, head, firstKey + oldest, firstKey + position + 1, out);
    }
    firstKey += contextLen;
  }
  return out;
}

/** A problem with the keys and values that the cache returns. */
type Problem = Omit<PagedAttention, 'k' | 'v'> & { readonly k: ArrayLike<number>; readonly v: ArrayLike<number> };

/** Attention of one token and head over keys [begin, end) of k and v. */
function attendOne(p: Problem, token: number, head: number, begin: number, end: number, out: Float64Array): void {
  const kvHead = Math.floor((p.firstHead + head) / p.groupSize) - p.firstKvHead;
  const q = (token * p.numHeads + head) * p.headDim;
  const row = (key: number): number => (key * p.numKvHeads + kvHead) * p.headDim;
  const scores = new Float64Array(end - begin);
  for (let key = begin; key < end; key++) {
    let score = 0;
    for (let d = 0; d < p.headDim; d++) score += at(p.q, q + d) * at(p.k, row(key) + d);
    scores[key - begin] = score * p.scale;
  }
  const max = scores.reduce((a, b) => Math.max(a, b));
  const weights = scores.map((score) => Math.exp(score - max));
  const sum = weights.reduce((a, b) => a + b);
  for (let key = begin; key < end; key++) {
    const weight = at(weights, key - begin) / sum;
    for (let d = 0; d < p.headDim; d++) out[q + d] = at(out, q + d) + weight * at(p.v, row(key) + d);
  }
}
