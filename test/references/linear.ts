/** `linear` in plain TypeScript: random problems, and the documented order of fp32 operations. */
import { isQuantized, quantizedChunkSum } from './quantized.ts';

export type DType = 'float32' | 'bfloat16' | 'float16';
export type Format = DType | 'int8' | 'int4';

/** Arguments of `testing.linear`: y = x Wᵀ + bias with x `[m, k]` and w `[n, k]`, both exact in their dtype; weights to quantize are fp32. */
export interface Problem {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly format: Format;
  readonly xDtype: DType;
  readonly x: Float32Array;
  readonly w: Float32Array;
  readonly bias: Float32Array | null;
  readonly chunkEdges: readonly number[];
  readonly firstChunk: number;
  readonly numChunks: number;
}

interface Shape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly format: Format;
  readonly xDtype: DType;
  readonly chunkEdges: readonly number[];
  readonly bias?: boolean;
  readonly firstChunk?: number;
  readonly numChunks?: number;
}

/** A problem of that shape with elements from `draw`, rounded to their dtypes. */
export function problem(shape: Shape, draw: () => number): Problem {
  const matrix = (count: number, dtype: Format): Float32Array => Float32Array.from({ length: count }, () => roundTo(dtype, draw()));
  const { m, k, n, format, xDtype, chunkEdges } = shape;
  const bias = shape.bias === true ? matrix(n, 'float32') : null;
  const numChunks = shape.numChunks ?? chunkEdges.length - 1;
  return {
    m,
    k,
    n,
    format,
    xDtype,
    x: matrix(m * k, xDtype),
    w: matrix(n * k, format),
    bias,
    chunkEdges,
    firstChunk: shape.firstChunk ?? 0,
    numChunks,
  };
}

/** Rows [begin, end) of x, with the same weights. */
export function rows(p: Problem, begin: number, end: number): Problem {
  return { ...p, m: end - begin, x: p.x.slice(begin * p.k, end * p.k) };
}

/** Draws an integer in `[0, below)`. */
type Integers = (below: number) => number;

/** A standard normal number (Box and Muller). */
export function normal(integers: Integers): number {
  const uniform = (): number => (integers(2 ** 32) + 0.5) / 2 ** 32;
  return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** `[numChunks + 1]` ascending edges from 0 to k; chunks may have odd lengths or be empty. */
export function randomEdges(integers: Integers, k: number, numChunks: number): number[] {
  const inner = Array.from({ length: numChunks - 1 }, () => integers(k + 1)).sort((a, b) => a - b);
  return [0, ...inner, k];
}

/** Nearest value of a dtype, ties to even, with fp16 denormals. */
export function roundTo(dtype: Format, value: number): number {
  const single = Math.fround(value);
  if ((dtype !== 'bfloat16' && dtype !== 'float16') || single === 0) return single;
  const significantBits = dtype === 'bfloat16' ? 8 : 11;
  const lowest = dtype === 'bfloat16' ? 2 ** -133 : 2 ** -24;
  const unit = Math.max(lowest, 2 ** (Math.floor(Math.log2(Math.abs(single))) - significantBits + 1));
  const quotient = single / unit;
  const floor = Math.floor(quotient);
  const up = quotient - floor > 0.5 || (quotient - floor === 0.5 && floor % 2 !== 0);
  return (up ? floor + 1 : floor) * unit;
}

const doubles = new Float64Array(1);
const words = new BigInt64Array(doubles.buffer);

/**
 * fround(a · b + c) with one rounding: the double-precision sum is rounded to odd, so that the second
 * rounding is correct.
 */
export function fma(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  const back = sum - product;
  const error = product - (sum - back) + (c - back);
  if (error === 0) return Math.fround(sum);
  doubles[0] = sum;
  const word = words[0] ?? 0n;
  if ((word & 1n) === 0n) words[0] = word + (error > 0 === sum > 0 ? 1n : -1n);
  return Math.fround(doubles[0] ?? Number.NaN);
}

/** Sum of the products of one chunk's columns. */
type Dot = (x: Float32Array, w: Float32Array) => number;

const chain: Dot = (x, w) => x.reduce((sum, a, l) => fma(a, w[l] as number, sum), 0);
const chainRoundedTwice: Dot = (x, w) => x.reduce((sum, a, l) => Math.fround(Math.fround(a * (w[l] as number)) + sum), 0);

const flush = (value: number): number => (Math.abs(value) < 2 ** -126 ? value * 0 : value);

/**
 * As TDPBF16PS of AMX sums: of each 32 columns, the even and the odd ones have a chain from 0 each, these two are added,
 * and that to the sum of the columns before. Every denormal, read or computed, is a zero.
 */
export const amxDot: Dot = (x, w) => {
  let sum = 0;
  for (let begin = 0; begin < x.length; begin += 32) {
    const chains: [number, number] = [0, 0];
    x.subarray(begin, begin + 32).forEach((a, l) => {
      chains[(l % 2) as 0 | 1] = flush(fma(flush(a), flush(w[begin + l] as number), chains[(l % 2) as 0 | 1]));
    });
    sum = flush(Math.fround(sum + flush(Math.fround(chains[0] + chains[1]))));
  }
  return sum;
};

/**
 * y `[m, n]` of a problem on one rank. Each chunk is a chain of multiply-adds from 0 over ascending k, or over the
 * groups of a quantized matrix. Chunks are summed by the tree whose node (level, index) covers chunks ⌊index · C / 2^level⌋ … ⌊(index + 1) · C / 2^level⌋.
 * `roundTwice`: a multiply-add rounds its product too. `dot` takes the place of the chain over k. `sumOf`: sums of chunks of
 * matrices that are not in `p.w`.
 */
export function referenceLinear(
  p: Omit<Problem, 'w'> & { readonly w?: Float32Array },
  roundTwice: boolean,
  dot: Dot = roundTwice ? chainRoundedTwice : chain,
  sumOf: (i: number, j: number, chunk: number) => number = (i, j, chunk) => problemChunkSum(p as Problem, i, j, chunk, roundTwice, dot),
): Float32Array {
  const y = new Float32Array(p.m * p.n);
  for (let i = 0; i < p.m; i++) {
    for (let j = 0; j < p.n; j++) {
      const chunkSum = (chunk: number): number => sumOf(i, j, chunk);
      y[i * p.n + j] = Math.fround((treeSum(p.numChunks, 0, 0, chunkSum) ?? Number.NaN) + (p.bias?.[j] ?? 0));
    }
  }
  return y;
}

function problemChunkSum(p: Problem, i: number, j: number, chunk: number, roundTwice: boolean, dot: Dot): number {
  if (isQuantized(p.format)) return quantizedChunkSum(p, i, j, chunk, roundTwice);
  const [begin, end] = [p.chunkEdges[chunk], p.chunkEdges[chunk + 1]];
  return dot(p.x.subarray(i * p.k, (i + 1) * p.k).subarray(begin, end), p.w.subarray(j * p.k, (j + 1) * p.k).subarray(begin, end));
}

function treeSum(numChunks: number, level: number, index: number, chunkSum: (chunk: number) => number): number | undefined {
  const begin = Math.floor((index * numChunks) / 2 ** level);
  const end = Math.floor(((index + 1) * numChunks) / 2 ** level);
  if (begin === end) return undefined;
  if (end - begin === 1) return chunkSum(begin);
  const lower = treeSum(numChunks, level + 1, index * 2, chunkSum);
  const upper = treeSum(numChunks, level + 1, index * 2 + 1, chunkSum);
  return lower === undefined || upper === undefined ? (lower ?? upper) : Math.fround(lower + upper);
}
