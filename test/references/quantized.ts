/** Quantization at load and of activations, and the sums of quantized products, in plain TypeScript: every rounding is explicit. */
import { type Format, fma, type Problem, roundTo } from './linear.ts';

type Quantized = Extract<Format, 'int8' | 'int4'>;

/** Columns that share a scale, and those that share a multiplier. */
export const groupColumns = 128;
const tileColumns = 32;

export const isQuantized = (format: Format): format is Quantized => format === 'int8' || format === 'int4';

/** A group of one row: value = q · scale. */
export interface Group {
  readonly q: readonly number[];
  readonly scale: number;
}

/** The nearest integer, ties to even. */
function roundEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  return fraction > 0.5 || (fraction === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** The value of largest magnitude, the positive one of two. */
function extreme(w: Float32Array): number {
  const [most, least] = [Math.max(0, ...w), Math.min(0, ...w)];
  return most >= -least ? most : least;
}

/**
 * Weights of one group: the scale is kept as fp16 of 256 times itself. q of int4 are those of 4 bits times the multiplier
 * of their tile.
 */
export function quantizeWeights(w: Float32Array, format: Quantized): Group {
  const amax = Math.abs(extreme(w));
  const scale = roundTo('float16', Math.fround(amax / (format === 'int8' ? 127 : 120)) * 256) / 256;
  if (scale === 0) return { q: [...w].map(() => 0), scale };
  const nearest = (value: number, step: number, low: number, high: number) =>
    Math.min(high, Math.max(low, roundEven(Math.fround(value / step))));
  if (format === 'int8') return { q: [...w].map((value) => nearest(value, scale, -127, 127)), scale };
  const q: number[] = [];
  for (let begin = 0; begin < w.length; begin += tileColumns) {
    const tile = w.subarray(begin, begin + tileColumns);
    const v = extreme(tile);
    const multiplier = nearest(Math.abs(v), 8 * scale, 1, 15) * (v > 0 || Object.is(v, 0) ? -1 : 1);
    q.push(...[...tile].map((value) => nearest(value, multiplier * scale, -8, 7) * multiplier));
  }
  return { q, scale };
}

/** Activations of one group. */
export function quantizeActivations(x: Float32Array): Group {
  const amax = Math.max(...x.map(Math.abs));
  if (!x.every(Number.isFinite)) return { q: [...x].map(() => 0), scale: Number.NaN };
  if (amax < 2 ** -100) return { q: [...x].map(() => 0), scale: 0 };
  const factor = Math.fround(127 / amax);
  return { q: [...x].map((value) => roundEven(Math.fround(value * factor))), scale: Math.fround(amax / 127) };
}

/** The sum of chunk `chunk` for row i of x and output j: exact dots of its groups, then one multiply-add for each. */
export function quantizedChunkSum(p: Problem, i: number, j: number, chunk: number, roundTwice: boolean): number {
  const format = p.format as Quantized;
  const [begin, end] = [p.chunkEdges[chunk] ?? 0, p.chunkEdges[chunk + 1] ?? 0];
  let sum = 0;
  for (let k = begin; k < end; k += groupColumns) {
    const last = Math.min(end, k + groupColumns);
    const w = quantizeWeights(p.w.subarray(j * p.k + k, j * p.k + last), format);
    const x = quantizeActivations(p.x.subarray(i * p.k + k, i * p.k + last));
    const dot = w.q.reduce((total, q, l) => total + q * (x.q[l] ?? Number.NaN), 0);
    const scale = Math.fround((x.scale / 256) * (w.scale * 256));
    sum = roundTwice ? Math.fround(Math.fround(dot * scale) + sum) : fma(dot, scale, sum);
  }
  return sum;
}
