/** Products with quantized weights: the edges of quantization, and values at which narrow sums would saturate. */
import { test } from 'tap';
import { native } from '../../rank/native.ts';
import { randomIntegers } from '../helpers/random.ts';
import { isas, sameBits } from '../helpers/testing.ts';
import { normal, type Problem, problem, referenceLinear, roundTo } from '../references/linear.ts';

interface Result {
  readonly numRoots: number;
  readonly roots: Float32Array;
}

const formats = ['int8', 'int4'] as const;
const linear = (isa: string, p: Problem): Result => (native().testing.linear as (options: object) => Result)({ isa, numThreads: 1, ...p });
const shape = { m: 10, k: 333, n: 40, xDtype: 'float32', chunkEdges: [0, 32, 165, 165, 333] } as const;

test('values at the ends of their range are summed without saturation', async (t) => {
  for (const format of formats) {
    for (const [wSign, xSign] of [
      [1, 1],
      [1, -1],
      [-1, 1],
      [-1, -1],
    ] as const) {
      const p = problem({ ...shape, format }, () => 1);
      p.w.fill(wSign * 3);
      p.x.fill(xSign * 5);
      for (const isa of isas)
        t.ok(sameBits(linear(isa, p).roots, referenceLinear(p, isa === 'portable')), `${isa} ${format} ${wSign} · ${xSign}`);
    }
  }
});

test('random ends of the range agree with the reference', async (t) => {
  const integers = randomIntegers(2);
  for (const format of formats) {
    const p = problem({ ...shape, format, bias: true }, () => (integers(2) === 0 ? -1 : 1) * (integers(3) === 0 ? 0.9 : 1));
    for (const isa of isas) t.ok(sameBits(linear(isa, p).roots, referenceLinear(p, isa === 'portable')), `${isa} ${format}`);
  }
});

/** Rows of `count` activations at the edges of their rounding, exact in bf16 where `normalRow` is. */
function activationRows(count: number, normalRow: readonly number[]): readonly (readonly number[])[] {
  const row = (value: (c: number) => number): number[] => Array.from({ length: count }, (_, c) => value(c));
  const at = (place: number, value: number): number[] => normalRow.map((other, c) => (c === place ? value : other));
  const places = [...new Set([0, Math.floor(count / 2), count - 1])];
  return [
    normalRow,
    // The factor is 1, and every value but the first is halfway between two integers.
    row((c) => (c === 0 ? 127 : (c % 2 === 0 ? -0.5 : 0.5) + (c % 63) * (c % 3 === 0 ? -1 : 1))),
    row(() => 0),
    row(() => -0),
    row((c) => 2 ** -101 * (c % 2 === 0 ? 1 : -1)),
    row((c) => (c === count - 1 ? -(2 ** -100) : 2 ** -101)),
    row((c) => (c % 2 === 0 ? 2 ** -126 : -(2 ** -130))),
    row((c) => (c % 2 === 0 ? 1.9921875 * 2 ** 127 : -(2 ** 126))),
    ...places.flatMap((place) => [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].map((value) => at(place, value))),
  ];
}

test('each integer of an activation has its rounding, in whole groups and ragged ones', async (t) => {
  const integers = randomIntegers(4);
  const oneNaN = (values: Float32Array): Float32Array => values.map((value) => (Number.isNaN(value) ? Number.NaN : value));
  for (const format of formats) {
    for (const xDtype of ['float32', 'bfloat16'] as const) {
      for (const k of [1, 16, 31, 32, 33, 64, 95, 128, 143]) {
        const normalRow = Array.from({ length: k }, () => roundTo(xDtype, normal(integers)));
        const given = activationRows(k, normalRow);
        // Weights are one in one column, so that an output is one activation: q_x * q_w * scales.
        const p = problem({ m: given.length, k, n: k, format, xDtype, chunkEdges: [0, k] }, () => 0);
        p.x.set(given.flat());
        for (let j = 0; j < k; j++) p.w[j * k + j] = 1;
        const once = oneNaN(referenceLinear(p, false));
        for (const isa of isas) {
          const expected = isa === 'portable' ? oneNaN(referenceLinear(p, true)) : once;
          t.ok(sameBits(oneNaN(linear(isa, p).roots), expected), `${isa} ${format} x ${xDtype}, ${k} columns`);
        }
      }
    }
  }
});

test('groups of zeros, and of values too small for their scale, are zero', async (t) => {
  for (const format of formats) {
    const p = problem({ ...shape, m: 3, format }, () => 1);
    p.w.fill(0, 0, 2 * p.k);
    p.w.fill(-0, p.k, p.k + 40);
    p.w.fill(1e-12, 3 * p.k, 4 * p.k);
    p.x.fill(0, p.k, 2 * p.k);
    p.x.fill(1e-31, 2 * p.k, 3 * p.k);
    for (const isa of isas) {
      const { roots } = linear(isa, p);
      t.ok(sameBits(roots, referenceLinear(p, isa === 'portable')), `${isa} ${format}`);
      t.same([...roots.slice(0, 2), ...roots.slice(p.n)], new Array(2 + 2 * p.n).fill(0), `${isa} ${format}: zeros`);
      t.equal(roots[3], 0, 'a scale below the least fp16');
    }
  }
});

test('scales at the edge of fp16 keep their rounding', async (t) => {
  const integers = randomIntegers(3);
  for (const format of formats) {
    for (const factor of [2 ** -31, 2 ** -27, 2 ** -20, 2 ** 8]) {
      const p = problem({ ...shape, m: 2, format }, () => normal(integers));
      for (let i = 0; i < p.w.length; i++) p.w[i] = (p.w[i] as number) * factor;
      for (const isa of isas) t.ok(sameBits(linear(isa, p).roots, referenceLinear(p, isa === 'portable')), `${isa} ${format} · ${factor}`);
    }
  }
});

test('weights that no scale can hold are refused', async (t) => {
  for (const isa of isas) {
    for (const format of formats) {
      for (const weight of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 40_000]) {
        const p = problem({ ...shape, format }, () => 1);
        p.w[5 * p.k + 200] = weight;
        t.throws(() => linear(isa, p), { code: 'ERR_INTERNAL', message: /fit their format/ }, `${isa} ${format} ${weight}`);
      }
      const most = format === 'int8' ? 32_496 : 30_712;
      const p = problem({ ...shape, format }, () => most);
      t.ok(linear(isa, p).roots.every(Number.isFinite), `${isa} ${format}: ${most} is held`);
    }
  }
});

test('an activation that is not finite spoils its own chunk and row only', async (t) => {
  for (const isa of isas) {
    for (const format of formats) {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        const edges = { k: 64, chunkEdges: [0, 31, 64], numChunks: 8, firstChunk: 3 };
        const p = problem({ ...shape, ...edges, m: 2, format }, () => 1);
        p.x[40] = value;
        const { numRoots, roots } = linear(isa, p);
        t.equal(numRoots, 2, 'chunks 3 and 4 of 8 have no common node but the root');
        const spoilt = Array.from({ length: 4 }, (_, i) => roots.slice(i * p.n, (i + 1) * p.n).every(Number.isNaN));
        t.same(spoilt, [false, false, true, false], `${isa} ${format} ${value}`);
      }
    }
  }
});
