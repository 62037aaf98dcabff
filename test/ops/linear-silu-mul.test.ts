/** The product of gate and up with SiLU as one operator: the bits of the two operators that it replaces. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { planCodes } from '../../rank/model/kept-codes.ts';
import { padToPanel } from '../../rank/model/partition.ts';
import { native } from '../../rank/native.ts';
import type { TensorSlice } from '../../rank/program-spec.ts';
import { type Matrix, sliceOf, whole, writeMatrix } from '../helpers/integer-matrices.ts';
import { randomIntegers } from '../helpers/random.ts';
import { type ActivationType, activationTypes, isas, sameBits, testing } from '../helpers/testing.ts';
import { type Format, normal, problem, roundTo } from '../references/linear.ts';

const ops = native().testing as {
  linear: (options: object) => { roots: Float32Array };
  linearSiluMul: (options: object) => Float32Array;
};

/** `width` columns each of gate and up; up begins at the next panel. */
interface Size {
  readonly k: number;
  readonly width: number;
}
/** A product for an input of so many rows. */
type Product = (m: number, xDtype: ActivationType) => { readonly m: number; readonly n: number } & object;

const upOffsetOf = ({ width }: Size) => padToPanel(width);
const numRowsOf = (size: Size) => upOffsetOf(size) + size.width;
const edgesOf = (k: number) => [0, Math.floor(k / 3), Math.floor(k / 3), Math.floor(k / 64) * 32, k];

function packedAtLoad(size: Size, format: Format, bias: boolean): Product {
  return (m, xDtype) => {
    const integers = randomIntegers(m + size.k);
    const shape = { m, k: size.k, n: numRowsOf(size), format, xDtype, chunkEdges: edgesOf(size.k), bias };
    return problem(shape, () => normal(integers) / 4);
  };
}

const inputs = (m: number, k: number, xDtype: ActivationType) => {
  const integers = randomIntegers(m + k);
  return Float32Array.from({ length: m * k }, () => roundTo(xDtype, normal(integers)));
};

function keptIntegers(folder: string, size: Size, bits: 4 | 8): Product {
  const [numRows, numCols] = [numRowsOf(size), size.k];
  const matrix: Matrix = { layout: 'rows', bits, numRows, numCols, groupSize: 64, hasZeros: true, zeroOffset: 0 };
  const { files, integers } = writeMatrix(folder, `integers${bits}-${size.k}`, matrix);
  const plan = planCodes([{ ...integers, groups: null }], { edges: edgesOf(numCols), begin: 0, all: null, first: 0 });
  if ('reason' in plan) throw new Error(plan.reason);
  const { format, codes, chunkEdges } = plan;
  const slice = sliceOf(integers, numCols, whole({ numRows, numCols }));
  const stored = { format, codes, chunkEdges, files, slice, firstChunk: 0, numChunks: chunkEdges.length - 1, bias: null };
  return (m, xDtype) => ({ ...stored, m, k: numCols, n: numRows, x: inputs(m, numCols, xDtype), xDtype });
}

function keptFloats(folder: string, size: Size): Product {
  const [numRows, numCols] = [numRowsOf(size), size.k];
  const draw = randomIntegers(numRows);
  // Positive and negative codes of less than 2.
  const codes = Uint8Array.from({ length: numRows * numCols }, () => draw(64) + 128 * draw(2));
  const scales = Float32Array.from({ length: numRows * Math.ceil(numCols / 128) }, () => normal(draw) / 4);
  const path = join(folder, `floats-${size.k}`);
  writeFileSync(path, Buffer.concat([codes, Buffer.from(scales.buffer)]));
  const fp8 = { file: 0, byteOffset: codes.length, dtype: 'float32', rowsPerScale: 1, colsPerScale: 128 } as const;
  const place = { name: 'w', file: 0, byteOffset: 0, dtype: 'bfloat16', integers: null, numCols } as const;
  const slice: TensorSlice = { ...place, fp8, ...whole({ numRows, numCols }) };
  const chunkEdges = [0, 32, 64, numCols];
  const stored = { format: 'fp8', chunkEdges, files: [path], slice, firstChunk: 0, numChunks: 3, bias: null };
  return (m, xDtype) => ({ ...stored, m, k: numCols, n: numRows, x: inputs(m, numCols, xDtype), xDtype });
}

function productsOf(folder: string, size: Size): Record<string, Product> {
  const formats: readonly Format[] = ['bfloat16', 'float16', 'float32', 'int8', 'int4'];
  return {
    ...Object.fromEntries(formats.map((format, i) => [format, packedAtLoad(size, format, i % 2 === 0)])),
    int4_zero: keptIntegers(folder, size, 4),
    int8_zero: keptIntegers(folder, size, 8),
    fp8: keptFloats(folder, size),
  };
}

/** Compares the operator on each number of threads with `linear` and `siluMul`. */
function check(t: Test, name: string, { width, ...size }: Size, product: Product, m: number, threads: readonly number[]): void {
  const upOffset = upOffsetOf({ width, ...size });
  for (const xDtype of activationTypes) {
    const p = product(m, xDtype);
    for (const isa of isas) {
      const { roots } = ops.linear({ ...p, isa, numThreads: 1 });
      const half = (row: number, from: number) => roots.subarray(row * p.n + from, row * p.n + from + width);
      const gateUp = Float32Array.from(Array.from({ length: m }, (_, row) => [...half(row, 0), ...half(row, upOffset)]).flat());
      const expected = testing.siluMul({ isa, numThreads: 1, gateUp, rows: m, width, outDtype: xDtype });
      if (!expected.some((value) => value !== 0)) t.fail('products of zeros show nothing');
      for (const numThreads of threads) {
        const out = ops.linearSiluMul({ ...p, isa, numThreads, width, upOffset, outDtype: xDtype });
        if (!sameBits(out, expected)) t.fail(`${isa} ${name}, x ${xDtype}, ${m} rows, ${numThreads} threads`);
      }
    }
  }
  t.pass(`${name}, ${m} rows of ${size.k}, ${width} columns`);
}

test('every format has the bits of a product and of SiLU after it', async (t) => {
  const folder = t.testdir({});
  for (const [size, rowCounts] of [
    [{ k: 150, width: 70 }, [1, 2, 5, 12, 31, 33, 100]],
    [{ k: 96, width: 32 }, [1, 13]],
    [{ k: 65, width: 7 }, [3, 49]],
  ] as const) {
    for (const [format, product] of Object.entries(productsOf(folder, size))) {
      for (const m of rowCounts) check(t, format, size, product, m, [1, 2, 3]);
    }
  }
});

test('panels in several groups', async (t) => {
  const size = { k: 1024, width: 229 };
  for (const [format, product] of Object.entries(productsOf(t.testdir({}), size))) check(t, format, size, product, 34, [1, 2]);
  // Rows that do not stay in a cache next to a panel.
  check(t, 'bfloat16', size, packedAtLoad(size, 'bfloat16', false), 520, [1]);
});

test('panels wider than the room of a group', async (t) => {
  const size = { k: 4200, width: 40 };
  for (const [format, product] of Object.entries({
    bfloat16: packedAtLoad(size, 'bfloat16', false),
    int4: packedAtLoad(size, 'int4', false),
    fp8: keptFloats(t.testdir({}), size),
  })) {
    check(t, format, size, product, 14, [1, 3]);
  }
});
