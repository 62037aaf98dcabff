/** Rows of a stored tensor in the type in which a model keeps them, against values computed in doubles. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { native } from '../../../rank/native.ts';
import type { DType, Fp8Scales, TensorSlice } from '../../../rank/program-spec.ts';
import { e4m3, toBf16 } from '../../references/fp8.ts';

interface Read {
  readonly files: readonly string[];
  readonly slice: TensorSlice;
  readonly dtype: DType;
  readonly firstRow: number;
  readonly numRows: number;
  readonly ld: number;
}
const { readSlice } = native().testing as unknown as { readSlice: (read: Read) => { inPlace: boolean; rows: Buffer } };

const folder = t.testdir({});
let numFiles = 0;
function write(bytes: Uint8Array): string {
  const path = join(folder, `${numFiles++}`);
  writeFileSync(path, bytes);
  return path;
}

function floats(values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}

/** The upper halves of floats that are bf16 values. */
function halves(values: readonly number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(new Uint32Array(Float32Array.from(values).buffer), (bits) => bits >>> 16).buffer);
}

const whole = (numRows: number, numCols: number) => ({ numCols, rowBegin: 0, rowEnd: numRows, colBegin: 0, colEnd: numCols });
const plain = { name: 'w', file: 0, byteOffset: 0, fp8: null, integers: null } as const;

/** Values of rows that were read as bf16 or fp32; the rest of a row must be untouched. */
function valuesOf(t: Test, rows: Buffer, dtype: DType, width: number, ld: number): number[] {
  const size = dtype === 'float32' ? 4 : 2;
  const values: number[] = [];
  for (let at = 0; at < rows.length; at += ld * size) {
    for (let i = at; i < at + width * size; i += size) {
      const wide = Buffer.alloc(4);
      rows.copy(wide, 4 - size, i, i + size);
      values.push(wide.readFloatLE());
    }
    if (!rows.subarray(at + width * size, at + ld * size).every((byte) => byte === 0xff)) t.fail('bytes past the columns of a row');
  }
  return values;
}

t.test('every code of float8_e4m3 under scales of each type', async (t) => {
  // Under 2^120 the largest codes are infinite; under 2^-130 all are denormal, and under 2^-149 most are zero.
  const exact = [1, 0.5, 2 ** -9, 1.0078125, 3.515625, 2 ** 15, 0, -0.75];
  const scales: Record<DType, number[]> = {
    float16: exact,
    bfloat16: [...exact, 2 ** 100, 2 ** 120, 2 ** -120, 1.9921875 * 2 ** 119],
    float32: [...exact, 0.1, 1 / 3, 0.00223214, 1.00390625, 2 ** -130, 2 ** -149, 2 ** 120, 3e38].map(Math.fround),
  };
  const half = (value: number) => Buffer.from(new Uint16Array([toHalf(value)]).buffer);
  const encode: Record<DType, (values: readonly number[]) => Uint8Array> = {
    float32: floats,
    bfloat16: halves,
    float16: (values) => Buffer.concat(values.map(half)),
  };
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
  for (const scaleDtype of ['float32', 'bfloat16', 'float16'] as const) {
    const factors = scales[scaleDtype];
    const files = [write(Buffer.concat(factors.map(() => codes))), write(encode[scaleDtype](factors))];
    const fp8: Fp8Scales = { file: 1, byteOffset: 0, dtype: scaleDtype, rowsPerScale: 1, colsPerScale: 256 };
    const slice: TensorSlice = { ...plain, dtype: 'bfloat16', fp8, ...whole(factors.length, 256) };
    const expected = factors.flatMap((scale) => [...codes].map((code) => toBf16(Math.fround(e4m3(code) * scale))));
    t.equal(expected.filter(Number.isNaN).length, 2 * factors.length, 'two codes are no number');
    for (const dtype of ['bfloat16', 'float32'] as const) {
      const { inPlace, rows } = readSlice({ files, slice, dtype, firstRow: 0, numRows: factors.length, ld: 259 });
      t.notOk(inPlace);
      t.same(
        valuesOf(t, rows, dtype, 256, 259).map((value) => (Object.is(value, -0) ? '-0' : value)),
        expected.map((value) => (Object.is(value, -0) ? '-0' : value)),
        `scales of ${scaleDtype}, kept as ${dtype}`,
      );
    }
  }
});

t.test('a slice that begins inside a block has the scales of the whole tensor', async (t) => {
  const [numRows, numCols] = [23, 37];
  const codes = Uint8Array.from({ length: numRows * numCols }, (_, i) => (i * 73 + (i >> 5)) % 127);
  for (const [rowsPerScale, colsPerScale] of [
    [8, 16],
    [1, numCols],
    [numRows, numCols],
    [128, 128],
    [numRows, 5],
  ] as const) {
    const scaleCols = Math.ceil(numCols / colsPerScale);
    const scales = Array.from({ length: Math.ceil(numRows / rowsPerScale) * scaleCols }, (_, i) => Math.fround(0.01 + i * 0.37));
    // Codes and scales in one file, both at odd offsets.
    const files = [write(Buffer.concat([Buffer.alloc(3), codes, floats(scales)]))];
    const fp8: Fp8Scales = { file: 0, byteOffset: 3 + codes.length, dtype: 'float32', rowsPerScale, colsPerScale };
    for (const [rowBegin, rowEnd, colBegin, colEnd] of [
      [0, 23, 0, 37],
      [7, 20, 15, 33],
      [9, 10, 16, 17],
      [22, 23, 36, 37],
      [5, 5, 0, 37],
    ] as const) {
      const range = { numCols, rowBegin, rowEnd, colBegin, colEnd };
      const slice: TensorSlice = { ...plain, byteOffset: 3, dtype: 'bfloat16', fp8, ...range };
      const all = rowEnd - rowBegin;
      const width = colEnd - colBegin;
      for (const firstRow of [0, all >> 1]) {
        const { rows } = readSlice({ files, slice, dtype: 'bfloat16', firstRow, numRows: all - firstRow, ld: width });
        const expected: number[] = [];
        for (let row = rowBegin + firstRow; row < rowEnd; row++) {
          for (let col = colBegin; col < colEnd; col++) {
            const scale = scales[Math.floor(row / rowsPerScale) * scaleCols + Math.floor(col / colsPerScale)] as number;
            expected.push(toBf16(Math.fround(e4m3(codes[row * numCols + col] as number) * scale)));
          }
        }
        t.same(
          valuesOf(t, rows, 'bfloat16', width, width),
          expected,
          `blocks of ${rowsPerScale} x ${colsPerScale}, rows from ${rowBegin + firstRow}`,
        );
      }
    }
  }
});

t.test('other types are widened exactly, and their own is read in place', async (t) => {
  const values = [1, -2.5, 0, 65280, 2 ** -14, 0.0999755859375];
  const asBf16 = values.map(toBf16);
  const sources: [DType, Uint8Array, readonly number[]][] = [
    ['float32', floats(values), values],
    ['bfloat16', halves(asBf16), asBf16],
    ['float16', new Uint8Array(Uint16Array.from(values, toHalf).buffer), values],
  ];
  for (const [dtype, bytes, expected] of sources) {
    const files = [write(bytes)];
    const slice: TensorSlice = { ...plain, dtype, ...whole(2, 3), colBegin: 1 };
    const read = (as: DType) => readSlice({ files, slice, dtype: as, firstRow: 0, numRows: 2, ld: 2 });
    t.ok(read(dtype).inPlace);
    t.equal(read('float32').inPlace, dtype === 'float32');
    t.same(valuesOf(t, read('float32').rows, 'float32', 2, 2), [expected[1], expected[2], expected[4], expected[5]], dtype);
  }
});

t.test('weights and scales past the end of their file are refused', async (t) => {
  const files = [write(new Uint8Array(64)), write(new Uint8Array(15))];
  const read = (fp8: Fp8Scales, numRows: number) => () =>
    readSlice({
      files,
      slice: { ...plain, dtype: 'bfloat16', fp8, ...whole(numRows, 16) },
      dtype: 'bfloat16',
      firstRow: 0,
      numRows: 1,
      ld: 16,
    });
  const scales: Fp8Scales = { file: 1, byteOffset: 0, dtype: 'float32', rowsPerScale: 1, colsPerScale: 16 };
  t.ok(read(scales, 3)());
  t.throws(read(scales, 4), { code: 'ERR_CHECKPOINT', message: /scales of tensor w to end at byte 16 .* 15 bytes/ });
  t.throws(read({ ...scales, rowsPerScale: 8 }, 5), { code: 'ERR_CHECKPOINT', message: /tensor w to end at byte 80 .* 64 bytes/ });
  t.throws(read({ ...scales, rowsPerScale: 0 }, 1), { code: 'ERR_INTERNAL', message: /rowsPerScale/ });
});

/** Bits of the fp16 that has this value. */
function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude === 0) return sign;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const fraction = magnitude / 2 ** exponent;
  return sign | (fraction < 1 ? fraction * 1024 : ((exponent + 15) << 10) | ((fraction - 1) * 1024));
}
