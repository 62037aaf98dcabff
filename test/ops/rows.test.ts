/** Row-wise operators: correct for any shape, and bit-identical for any other rows and number of threads. */
import { type Test, test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { activationTypes, at, isas, maxDifference, normals, rounders, sameBits, testing } from '../helpers/testing.ts';

const sizes: readonly (readonly [rows: number, width: number])[] = [
  [1, 1],
  [1, 64],
  [3, 17],
  [2, 31],
  [5, 96],
  [1, 576],
  [40, 100],
  [7, 1000],
];

const paddedWidth = (width: number): number => Math.ceil(width / 32) * 32;

/** `[rows, width]` of rows with a stride of `ld`. */
function columns(values: Float32Array, rows: number, ld: number, width: number): Float32Array {
  return Float32Array.from({ length: rows * width }, (_, i) => at(values, Math.floor(i / width) * ld + (i % width)));
}

/** Whether every element past the width is +0. */
function isZeroPadded(values: Float32Array, width: number): boolean {
  return values.every((value, i) => i % paddedWidth(width) < width || Object.is(value, 0));
}

/** Largest |a - b| / |b|. */
function relativeError(a: Float32Array, b: Float64Array): number {
  return maxDifference(
    a.map((value, i) => (value - at(b, i)) / Math.abs(at(b, i) || 1)),
    new Float32Array(b.length),
  );
}

/**
 * Checks an activation operator: fp32 results against the reference, bf16 results equal to those rounded, zero padding,
 * and batch invariance.
 */
function checkActivation(
  t: Test,
  name: string,
  [rows, width]: readonly [number, number],
  reference: Float64Array,
  run: (outDtype: 'float32' | 'bfloat16', begin: number, end: number, numThreads: number) => Float32Array,
): void {
  const ld = paddedWidth(width);
  const single = run('float32', 0, rows, 1);
  const error = relativeError(columns(single, rows, ld, width), reference);
  t.ok(error < 1e-6, `${name}: relative error ${error}`);
  t.ok(sameBits(run('bfloat16', 0, rows, 1), single.map(rounders.bfloat16)), `${name}: bfloat16 is float32 rounded`);
  for (const dtype of activationTypes) {
    const whole = run(dtype, 0, rows, 1);
    t.ok(isZeroPadded(whole, width), `${name}: zero padding`);
    for (const row of [0, Math.floor(rows / 2), rows - 1]) {
      t.ok(sameBits(run(dtype, row, row + 1, 1), whole.slice(row * ld, (row + 1) * ld)), `${name}: row ${row} alone`);
    }
    for (const numThreads of [2, 3]) t.ok(sameBits(run(dtype, 0, rows, numThreads), whole), `${name}: ${numThreads} threads`);
  }
}

test('RMS norm', async (t) => {
  const integers = randomIntegers(1);
  for (const isa of isas) {
    for (const [rows, width] of sizes) {
      const x = normals(integers, rows * width, 3);
      const weight = normals(integers, width);
      const eps = Math.fround(1e-5);
      const reference = new Float64Array(rows * width);
      for (let row = 0; row < rows; row++) {
        const squares = x.subarray(row * width, (row + 1) * width).reduce((sum, value) => sum + value * value, 0);
        const scale = 1 / Math.sqrt(squares / width + eps);
        for (let i = 0; i < width; i++) reference[row * width + i] = at(x, row * width + i) * scale * at(weight, i);
      }
      checkActivation(t, `${isa} [${rows}, ${width}]`, [rows, width], reference, (outDtype, begin, end, numThreads) =>
        testing.rmsNorm({ isa, numThreads, x: x.slice(begin * width, end * width), rows: end - begin, width, weight, eps, outDtype }),
      );
    }
    const zeros = testing.rmsNorm({
      isa,
      numThreads: 1,
      x: new Float32Array(8),
      rows: 1,
      width: 8,
      weight: new Float32Array(8).fill(1),
      eps: 1e-6,
      outDtype: 'float32',
    });
    t.ok(sameBits(zeros, new Float32Array(32)), `${isa}: a row of zeros stays zero`);
  }
});

test('SiLU and product', async (t) => {
  const integers = randomIntegers(2);
  for (const isa of isas) {
    for (const [rows, width] of sizes) {
      const gateUp = normals(integers, rows * 2 * width, 4);
      const reference = new Float64Array(rows * width);
      for (let i = 0; i < rows * width; i++) {
        const column = Math.floor(i / width) * 2 * width + (i % width);
        const gate = at(gateUp, column);
        reference[i] = (gate / (1 + Math.exp(-gate))) * at(gateUp, column + width);
      }
      checkActivation(t, `${isa} [${rows}, ${width}]`, [rows, width], reference, (outDtype, begin, end, numThreads) =>
        testing.siluMul({ isa, numThreads, gateUp: gateUp.slice(begin * 2 * width, end * 2 * width), rows: end - begin, width, outDtype }),
      );
    }
    const gate = [-200, -100, 0, 100, 3e38, Number.NaN];
    const saturated = testing.siluMul({
      isa,
      numThreads: 1,
      gateUp: Float32Array.from([...gate, 1, 1, 1, 1, 1, 1]),
      rows: 1,
      width: 6,
      outDtype: 'float32',
    });
    t.same([...saturated.slice(0, 6)], [-0, -0, 0, 100, Math.fround(3e38), Number.NaN], `${isa}: far from zero`);
  }
});

test('norm of heads inside a wider row', async (t) => {
  const integers = randomIntegers(3);
  for (const isa of isas) {
    for (const [headDim, numHeads] of [
      [2, 3],
      [16, 2],
      [64, 9],
      [80, 1],
      [128, 4],
    ] as const) {
      const rows = 5;
      const offset = 7;
      const width = offset + numHeads * headDim + 11;
      const qkv = normals(integers, rows * width, 2);
      const weight = normals(integers, headDim);
      const options = { isa, offset, numHeads, headDim, weight, eps: 1e-6, width };
      const out = testing.headNorm({ ...options, qkv, rows, numThreads: 1 });
      const expected = Float64Array.from(qkv);
      for (let row = 0; row < rows; row++) {
        for (let head = 0; head < numHeads; head++) {
          const begin = row * width + offset + head * headDim;
          const squares = qkv.subarray(begin, begin + headDim).reduce((sum, value) => sum + value * value, 0);
          for (let i = 0; i < headDim; i++) {
            expected[begin + i] = (at(qkv, begin + i) / Math.sqrt(squares / headDim + Math.fround(1e-6))) * at(weight, i);
          }
        }
      }
      const error = relativeError(out, expected);
      t.ok(error < 1e-6, `${isa} ${numHeads} heads of ${headDim}: relative error ${error}`);
      const untouched = out.every((value, i) => (i % width >= offset && i % width < width - 11) || Object.is(value, qkv[i]));
      t.ok(untouched, 'other columns are left alone');
      t.ok(sameBits(testing.headNorm({ ...options, qkv, rows, numThreads: 3 }), out), '3 threads');
      const last = testing.headNorm({ ...options, qkv: qkv.slice(-width), rows: 1, numThreads: 1 });
      t.ok(sameBits(last, out.slice(-width)), 'a row alone');
    }
  }
});

test('sum of two values, also in place', async (t) => {
  const integers = randomIntegers(4);
  for (const isa of isas) {
    for (const [rows, width] of sizes) {
      const a = normals(integers, rows * width);
      const b = normals(integers, rows * width);
      const expected = a.map((value, i) => value + at(b, i));
      for (const inPlace of [false, true]) {
        for (const numThreads of [1, 3]) {
          const out = columns(testing.add({ isa, numThreads, a, b, rows, width, inPlace }), rows, paddedWidth(width), width);
          t.ok(sameBits(out, expected), `${isa} [${rows}, ${width}]${inPlace ? ' in place' : ''}, ${numThreads} threads`);
        }
      }
    }
  }
});

test('embedding rows that this rank owns', async (t) => {
  const integers = randomIntegers(5);
  for (const isa of isas) {
    for (const tableDtype of ['float32', 'bfloat16', 'float16'] as const) {
      for (const width of [1, 16, 37, 100]) {
        const numRows = 20;
        const firstRow = 50;
        // Multiples of 1/8 below 16, exact in every type, and -0.
        const table = Float32Array.from({ length: numRows * width }, (_, i) => (i === 3 ? -0 : integers(255) / 8 - 15.875));
        const tokenIds = Int32Array.of(50, 69, 49, 70, 0, 55, 55, 2 ** 31 - 1, 60);
        for (const numThreads of [1, 3]) {
          const out = testing.embedding({ isa, numThreads, tokenIds, table, tableDtype, firstRow, numRows, width });
          const ld = paddedWidth(width);
          for (const [i, id] of tokenIds.entries()) {
            const owned = id >= firstRow && id < firstRow + numRows;
            const row = out.slice(i * ld, i * ld + width);
            if (!owned) t.ok(row.every(Number.isNaN), `row of token ${id} is left alone`);
            else t.ok(sameBits(row, table.slice((id - firstRow) * width, (id - firstRow + 1) * width)), `${isa} ${tableDtype} token ${id}`);
          }
        }
      }
    }
    const smallest = testing.embedding({
      isa,
      numThreads: 1,
      tokenIds: Int32Array.of(0),
      table: Float32Array.of(2 ** -24, -(2 ** -14), 65504, Number.POSITIVE_INFINITY),
      tableDtype: 'float16',
      firstRow: 0,
      numRows: 1,
      width: 4,
    });
    t.same(
      [...smallest.slice(0, 4)],
      [2 ** -24, -(2 ** -14), 65504, Number.POSITIVE_INFINITY],
      `${isa}: denormal, largest and infinite float16`,
    );
  }
});

test('joining partial sums follows the merges, then adds the bias', async (t) => {
  const integers = randomIntegers(6);
  const programs: readonly (readonly number[])[] = [
    [0],
    [0, 1],
    [0, 1, 0, 2],
    [0, 0, 0, 3],
    [0, 1, 0, 1, 1, 0, 1],
    Array.from({ length: 200 }, (_, i) => (i === 0 ? 0 : 1)),
  ];
  for (const isa of isas) {
    for (const merges of programs) {
      for (const [width, count] of [
        [1, 5],
        [10, 70],
        [33, 33 * 7],
        [64, 640],
      ] as const) {
        const inputs = normals(integers, merges.length * count);
        for (const bias of [null, normals(integers, width)]) {
          const begin = integers(count);
          const end = begin + integers(count - begin + 1);
          const out = testing.join({ isa, inputs, count, merges: Int32Array.from(merges), bias, width, begin, end });
          const expected = new Float32Array(count).fill(Number.NaN);
          for (let i = begin; i < end; i++) {
            const stack: number[] = [];
            for (const [input, numMerges] of merges.entries()) {
              stack.push(at(inputs, input * count + i));
              for (let m = 0; m < numMerges; m++) {
                const upper = stack.pop() ?? Number.NaN;
                stack.push(Math.fround((stack.pop() ?? Number.NaN) + upper));
              }
            }
            expected[i] = Math.fround((stack[0] ?? Number.NaN) + (bias === null ? 0 : at(bias, i % width)));
          }
          const same = out.every((value, i) => Object.is(value, expected[i]));
          t.ok(same, `${isa} ${merges.length} inputs, rows of ${width}, [${begin}, ${end})`);
        }
      }
    }
  }
});
