/** Rotary embedding and the KV cache: exact angles at any position, the correct cells written, and no others. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, cacheTypes, isas, normals, type RopeAndStore, rounders, type StoredKv, sameBits, testing } from '../helpers/testing.ts';
import { quantizeRow } from '../references/int8.ts';

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
    // Max error: half an ulp of numbers below 1. The reduction of large angles must add nothing.
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

/** The rotation in the kernel's order of operations without fused multiply-adds, and the cells that it writes. */
function reference(p: RopeAndStore): Required<StoredKv> {
  const round = rounders[p.dtype];
  const half = p.headDim / 2;
  const ld = Math.ceil((p.numHeads * p.headDim) / 32) * 32;
  const padded = Math.ceil(p.headDim / 16) * 16;
  const q = new Float32Array(p.rows * ld);
  const cells = p.numBlocks * p.blockSize * p.numKvHeads * padded;
  const [k, v] = [new Float32Array(cells), new Float32Array(cells)];
  const [kScales, vScales] = [new Float32Array(cells / padded), new Float32Array(cells / padded)];
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
    }
    for (let head = 0; head < p.numKvHeads; head++) {
      const place = at(p.kvSlots, row) * p.numKvHeads + head;
      const key = Float32Array.from({ length: p.headDim }, (_, d) => rotated(row, p.kOffset + head * p.headDim, d));
      const valueAt = row * p.width + p.vOffset + head * p.headDim;
      const value = p.qkv.slice(valueAt, valueAt + p.headDim);
      const [intKey, intValue] = [quantizeRow(key), quantizeRow(value)];
      k.set(p.kvDtype === 'int8' ? intKey.integers : key.map(rounders[p.kvDtype]), place * padded);
      v.set(p.kvDtype === 'int8' ? intValue.integers : value.map(rounders[p.kvDtype]), place * padded);
      kScales[place] = intKey.scale;
      vScales[place] = intValue.scale;
    }
  }
  return { q, k, v, kScales, vScales };
}

test('q is rotated, k and v land in their slots, all else stays zero', async (t) => {
  const integers = randomIntegers(2);
  for (const cache of cacheTypes) {
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
      // Rows of a step are consecutive cache slots in half of the cases, and scattered in the others.
      const slots = Array.from({ length: numBlocks * blockSize }, (_, slot) => slot);
      const first = integers(slots.length - rows + 1);
      const jump = integers(2) === 0;
      const kvSlots = Int32Array.from({ length: rows }, (_, row) => (jump ? at(slots.splice(integers(slots.length), 1), 0) : first + row));
      const qkv = normals(integers, rows * width);
      const p = { ...cache, numBlocks, blockSize, numKvHeads, headDim, qkv, rows, width, numHeads, qOffset, kOffset, vOffset, kvSlots };
      const problem = { ...p, cos: normals(integers, rows * half), sin: normals(integers, rows * half) };
      const expected = reference(problem);
      for (const isa of isas) {
        for (const numThreads of [1, 2, 3]) {
          const out = testing.ropeAndStore({ isa, numThreads, ...problem });
          const name = `${isa} ${JSON.stringify(cache)} ${rows} rows, heads of ${headDim}, ${numThreads} threads`;
          t.ok(sameBits(out.q, expected.q), `${name}: q`);
          t.ok(sameBits(out.k, expected.k), `${name}: k`);
          t.ok(sameBits(out.v, expected.v), `${name}: v`);
          if (cache.kvDtype !== 'int8') continue;
          t.ok(sameBits(out.kScales as Float32Array, expected.kScales), `${name}: scales of k`);
          t.ok(sameBits(out.vScales as Float32Array, expected.vScales), `${name}: scales of v`);
        }
      }
    }
  }
});

/** An int8 cache's row for one token and head with `row` as k and v. */
function storeInt8(isa: string, row: readonly number[]): { integers: number[]; scale: number | undefined } {
  const headDim = row.length;
  const { v, vScales } = testing.ropeAndStore({
    isa,
    numThreads: 1,
    dtype: 'float32',
    kvDtype: 'int8',
    numBlocks: 1,
    blockSize: 32,
    numKvHeads: 1,
    headDim,
    qkv: Float32Array.from([...row, ...row, ...row]),
    rows: 1,
    width: headDim * 3,
    numHeads: 1,
    qOffset: 0,
    kOffset: headDim,
    vOffset: headDim * 2,
    kvSlots: Int32Array.of(0),
    cos: new Float32Array(headDim / 2).fill(1),
    sin: new Float32Array(headDim / 2),
  });
  return { integers: [...v.subarray(0, headDim)], scale: vScales?.[0] };
}

test('int8 rounds to nearest, ties to even, and knows zeros, denormals and what is not finite', async (t) => {
  const least = 2 ** -149;
  for (const isa of isas) {
    const ties = storeInt8(isa, [127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5]);
    t.same(ties, { integers: [127, 0, 2, 2, 0, -2, -126, 126], scale: 1 }, `${isa}: ties`);
    t.same(storeInt8(isa, [-254, 2, 3, -1]), { integers: [-127, 1, 2, 0], scale: 2 }, `${isa}: the largest is negative`);
    t.same(storeInt8(isa, [0, -0]), { integers: [0, 0], scale: 0 }, `${isa}: zeros`);
    t.same(storeInt8(isa, [60 * least, -least]), { integers: [0, 0], scale: 0 }, `${isa}: a scale that is no number any more`);
    // 180 / 127 rounds to 1, so the quotient 180 exceeds the int8 range.
    t.same(storeInt8(isa, [180 * least, -20 * least]), { integers: [127, -20], scale: least }, `${isa}: a scale of one bit`);
    const huge = storeInt8(isa, [3e38, -1e38]);
    t.same(huge, { integers: [127, -42], scale: Math.fround(Math.fround(3e38) / 127) }, `${isa}: huge`);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      t.ok(Number.isNaN(storeInt8(isa, [1, 2, bad, 3]).scale), `${isa}: ${bad} shows`);
    }
  }
});
