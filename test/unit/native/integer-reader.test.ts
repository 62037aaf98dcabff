/** Rows of a matrix stored as integers, for any slice of it, against the definition of each layout. */
import { writeFileSync } from 'node:fs';
import t from 'tap';
import { native } from '../../../rank/native.ts';
import type { StoredIntegers, TensorSlice } from '../../../rank/program-spec.ts';
import { int32, type Matrix, matrices, sliceOf, whole, writeMatrix } from '../../helpers/integer-matrices.ts';
import { integerValue } from '../../references/integers.ts';

interface Read {
  readonly files: readonly string[];
  readonly slice: TensorSlice;
  readonly dtype: 'float32' | 'bfloat16';
  readonly firstRow: number;
  readonly numRows: number;
  readonly ld: number;
}
const { readSlice } = native().testing as unknown as { readSlice: (read: Read) => { inPlace: boolean; rows: Buffer } };

const folder = t.testdir({});

/** Rows and columns, from and to, as shares of all. */
const cuts = [
  [0, 1, 0, 1],
  [0.3, 0.8, 0.21, 0.77],
  [0.95, 1, 0.5, 0.51],
  [0, 0.02, 0.9, 1],
  [0.4, 0.4, 0, 1],
] as const;

for (const [name, matrix] of Object.entries(matrices)) {
  t.test(name, async (t) => {
    const { files, contents, integers } = writeMatrix(folder, name, matrix);
    const { numRows, numCols } = matrix;
    for (const [top, bottom, left, right] of cuts) {
      const [rowBegin, rowEnd] = [Math.floor(top * numRows), Math.ceil(bottom * numRows)];
      const [colBegin, colEnd] = [Math.floor(left * numCols), Math.ceil(right * numCols)];
      const slice = sliceOf(integers, numCols, { rowBegin, rowEnd, colBegin, colEnd });
      const firstRow = (rowEnd - rowBegin) >> 2;
      const [count, width] = [rowEnd - rowBegin - firstRow, colEnd - colBegin];
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const { inPlace, rows } = readSlice({ files, slice, dtype, firstRow, numRows: count, ld: width + 1 });
        t.notOk(inPlace);
        const read: number[] = [];
        const expected: number[] = [];
        const size = dtype === 'float32' ? 4 : 2;
        for (let row = 0; row < count; row++) {
          for (let col = 0; col < width; col++) {
            const at = (row * (width + 1) + col) * size;
            read.push(dtype === 'float32' ? rows.readInt32LE(at) : rows.readUInt16LE(at) << 16);
            const value = integerValue(contents, slice, integers, rowBegin + firstRow + row, colBegin + col);
            expected.push(new Int32Array(Float32Array.of(value).buffer)[0] as number);
          }
          if (rows.readUInt16LE((row * (width + 1) + width) * size) !== 0xffff) t.fail('bytes past the columns of a row');
        }
        t.same(read, expected, `${dtype}, rows ${rowBegin} to ${rowEnd}, columns ${colBegin} to ${colEnd}`);
      }
    }
  });
}

t.test('one scale for a whole matrix', async (t) => {
  const matrix = matrices['int8'] as Matrix;
  const { files, contents, integers: many } = writeMatrix(folder, 'tensor', matrix, { scales: Buffer.from(Float32Array.of(0.037).buffer) });
  const integers = { ...many, scales: { ...many.scales, rowStride: 0, groupStride: 0 } };
  const slice = sliceOf(integers, matrix.numCols, whole(matrix));
  const { rows } = readSlice({ files, slice, dtype: 'float32', firstRow: 0, numRows: matrix.numRows, ld: matrix.numCols });
  t.equal(rows.readFloatLE((20 * matrix.numCols + 77) * 4), integerValue(contents, slice, integers, 20, 77));
});

t.test('files that lie are refused', async (t) => {
  const matrix = { ...(matrices['GPTQ v2 with an order'] as Matrix), scaleDtype: 'float32' } as const;
  const count = matrix.numRows * 3;
  const read =
    (integers: StoredIntegers, files: readonly string[], rowEnd = matrix.numRows) =>
    () =>
      readSlice({
        files,
        slice: sliceOf(integers, 144, { ...whole(matrix), rowEnd }),
        dtype: 'bfloat16',
        firstRow: 0,
        numRows: 1,
        ld: 144,
      });
  const good = writeMatrix(folder, 'good', matrix);
  t.ok(read(good.integers, good.files)());
  for (const [scale, text] of [
    [0, '0.000000'],
    [Number.NaN, 'nan'],
    [Number.POSITIVE_INFINITY, 'inf'],
  ] as const) {
    const values = new Float32Array(count).fill(1);
    values[matrix.numRows + 5] = scale;
    const { files, integers } = writeMatrix(folder, `scale-${text}`, matrix, { scales: Buffer.from(values.buffer) });
    t.throws(read(integers, files), {
      code: 'ERR_CHECKPOINT',
      message: new RegExp(`finite scales .*tensor w .*${text} for row 5, group 1`),
    });
    t.ok(read(integers, files, 5)(), 'rows that do not need it');
  }
  for (const group of [-1, 3, 2 ** 31 - 1]) {
    const order = [...(matrix.order as readonly number[])];
    order[143] = group;
    const { files, integers } = writeMatrix(folder, `group-${group}`, matrix, { groupIndex: int32(order) });
    t.throws(read(integers, files), { code: 'ERR_CHECKPOINT', message: new RegExp(`groups 0 to 2 .*tensor w .*${group} for column 143`) });
  }
  for (const [i, part] of ['integers', 'scales', 'zero points', 'group indices'].entries()) {
    const { files, contents, integers } = writeMatrix(folder, 'short', matrix);
    const content = contents[i] as Buffer;
    writeFileSync(files[i] as string, content.subarray(0, -1));
    const message = new RegExp(`${part} of tensor w to end at byte ${content.length} .* ${content.length - 1} bytes`);
    t.throws(read(integers, files), { code: 'ERR_CHECKPOINT', message });
  }
  for (const [changes, message] of [
    [{ layout: 'nibbles' }, /layout of integers/],
    [{ bits: 5 }, /4 or 8 bits/],
    [{ numRows: 36 }, /slice of whole words/],
    [{ groupSize: 0 }, /groupSize/],
    [{ zeros: { file: 9, byteOffset: 0 } }, /a file index/],
    [{ zeros: { file: 0, byteOffset: -1 } }, /parts inside their file/],
  ] as const) {
    t.throws(read({ ...good.integers, ...(changes as object) }, good.files), { code: 'ERR_INTERNAL', message });
  }
});
