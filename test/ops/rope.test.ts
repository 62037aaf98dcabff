/** Rotary embedding and the KV cache: exact angles at any position, the right cells written, nothing else touched. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { activationTypes, at, isas, normals, type RopeAndStore, rounders, sameBits, testing } from './testing.ts';

test('cos and sin of position · frequency in single precision', async (t) => {
  const integers = randomIntegers(1);
  const halfDim = 37;
  const invFreq = Float32Array.from({ length: halfDim }, (_, i) => 10_000 ** (-i / halfDim));
  const positions = Int32Array.from([
    0,
    1,
    2,
    3,
    11,
    22,
    355,
    710,
    103_993,
    999_999,
    ...Array.from({ length: 200 }, () => integers(1_000_000)),
  ]);
  for (const isa of isas) {
    const { cos, sin } = testing.ropeTable({ isa, numThreads: 1, positions, invFreq, halfDim, scale: 1 });
    let worst = 0;
    for (const [row, position] of positions.entries()) {
      for (const [i, frequency] of invFreq.entries()) {
        const phase = Math.fround(position * frequency);
        worst = Math.max(
          worst,
          Math.abs(at(cos, row * halfDim + i) - Math.cos(phase)),
          Math.abs(at(sin, row * halfDim + i) - Math.sin(phase)),
        );
      }
    }
    // Half a unit in the last place of numbers below 1, and nothing for the reduction of large angles.
    t.ok(worst < 2 ** -25 * 1.01, `${isa}: off by ${worst}`);
    t.equal(cos[0], 1);
    t.equal(sin[0], 0);
    const scaled = testing.ropeTable({ isa, numThreads: 3, positions, invFreq, halfDim, scale: 1.25 });
    t.ok(
      sameBits(
        scaled.cos,
        cos.map((value) => value * 1.25),
      ),
      `${isa}: scale and threads`,
    );
    const first = testing.ropeTable({ isa: isas[0] ?? '', numThreads: 1, positions, invFreq, halfDim, scale: 1 });
    t.ok(sameBits(cos, first.cos) && sameBits(sin, first.sin), `${isa} equals ${isas[0]}`);
  }
});

interface Expected {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Rotation in the order of operations that the kernel has without fused multiply-adds, and the cells it writes. */
function reference(p: RopeAndStore): Expected {
  const round = rounders[p.dtype];
  const half = p.headDim / 2;
  const ld = Math.ceil((p.numHeads * p.headDim) / 32) * 32;
  const padded = Math.ceil(p.headDim / 16) * 16;
  const q = new Float32Array(p.rows * ld);
  const cells = p.numBlocks * p.blockSize * p.numKvHeads * padded;
  const [k, v] = [new Float32Array(cells), new Float32Array(cells)];
  const rotated = (row: number, begin: number, d: number): number => {
    const i = d % half;
    const [a, b] = [at(p.qkv, row * p.width + begin + i), at(p.qkv, row * p.width + begin + i + half)];
    const [c, s] = [at(p.cos, row * half + i), at(p.sin, row * half + i)];
    const product = (x: number, y: number): number => Math.fround(x * y);
    return Math.fround(d < half ? product(a, c) - product(b, s) : product(b, c) + product(a, s));
  };
  for (let row = 0; row < p.rows; row++) {
    for (let d = 0; d < p.headDim; d++) {
      for (let head = 0; head < p.numHeads; head++)
        q[row * ld + head * p.headDim + d] = round(rotated(row, p.qOffset + head * p.headDim, d));
      for (let head = 0; head < p.numKvHeads; head++) {
        const cell = (at(p.kvSlots, row) * p.numKvHeads + head) * padded + d;
        k[cell] = round(rotated(row, p.kOffset + head * p.headDim, d));
        v[cell] = round(at(p.qkv, row * p.width + p.vOffset + head * p.headDim + d));
      }
    }
  }
  return { q, k, v };
}

test('q is rotated, k and v land in their slots, all else stays zero', async (t) => {
  const integers = randomIntegers(2);
  for (const dtype of activationTypes) {
    for (const [headDim, numHeads, numKvHeads, rows, blockSize] of [
      [2, 1, 1, 3, 32],
      [8, 3, 1, 40, 32],
      [16, 2, 2, 1, 64],
      [26, 3, 2, 5, 32],
      [64, 9, 3, 70, 64],
      [80, 2, 1, 33, 96],
      [128, 4, 2, 64, 32],
    ] as const) {
      const numBlocks = Math.ceil(rows / blockSize) + 2;
      const [qOffset, kOffset] = [5, 5 + numHeads * headDim + 3];
      const vOffset = kOffset + numKvHeads * headDim + 1;
      const width = vOffset + numKvHeads * headDim + 2;
      const half = headDim / 2;
      // Rows of a step are often neighbours in a block and often not: half of them run on, half jump.
      const slots = Array.from({ length: numBlocks * blockSize }, (_, slot) => slot);
      const first = integers(slots.length - rows + 1);
      const jump = integers(2) === 0;
      const kvSlots = Int32Array.from({ length: rows }, (_, row) => (jump ? at(slots.splice(integers(slots.length), 1), 0) : first + row));
      const qkv = normals(integers, rows * width);
      const p = { dtype, numBlocks, blockSize, numKvHeads, headDim, qkv, rows, width, numHeads, qOffset, kOffset, vOffset, kvSlots };
      const problem = { ...p, cos: normals(integers, rows * half), sin: normals(integers, rows * half) };
      const expected = reference(problem);
      for (const isa of isas) {
        for (const numThreads of [1, 2, 3]) {
          const out = testing.ropeAndStore({ isa, numThreads, ...problem });
          const name = `${isa} ${dtype} ${rows} rows, heads of ${headDim}, ${numThreads} threads`;
          t.ok(sameBits(out.q, expected.q), `${name}: q`);
          t.ok(sameBits(out.k, expected.k), `${name}: k`);
          t.ok(sameBits(out.v, expected.v), `${name}: v`);
        }
      }
    }
  }
});
