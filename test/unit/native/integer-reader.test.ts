/** Rows of a matrix stored as integers, for any slice of it, against the definition of each layout. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { native } from '../../../rank/native.ts';
import type { StoredIntegers, TensorSlice } from '../../../rank/program-spec.ts';
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

type Matrix = Omit<StoredIntegers, 'scales' | 'zeros' | 'groupIndex'> & {
  readonly numCols: number;
  readonly hasZeros: boolean;
  readonly order?: readonly number[];
  readonly scaleDtype?: 'float32' | 'float16' | 'bfloat16';
};

/** Bytes that look random, the same in every run. */
const noise = (count: number, seed: number) => Buffer.from(Uint8Array.from({ length: count }, (_, i) => ((i + seed) * 2654435761) >>> 13));
const int32 = (values: readonly number[]) => Buffer.from(Int32Array.from(values).buffer);

/** The parts of a matrix in files of their own, each 3 bytes from its start. */
function writeMatrix(name: string, matrix: Matrix, changes: Partial<Record<'scales' | 'groupIndex', Buffer>> = {}) {
  const { numCols, hasZeros, order, scaleDtype = 'float16', ...how } = matrix;
  const numGroups = Math.ceil(numCols / how.groupSize);
  const perWord = 32 / how.bits;
  const [words, isRows] = [Math.ceil(how.numRows / perWord), how.layout === 'rows'];
  const bytes =
    how.layout === 'bytes'
      ? how.numRows * numCols
      : isRows
        ? how.numRows * Math.ceil(numCols / perWord) * 4
        : (how.numRows * numCols * how.bits) / 8;
  const count = how.numRows * numGroups;
  // fp16 with exponents around 2^-6; fp32 of any fraction.
  const halfBits = Uint16Array.from({ length: count }, (_, i) => 0x2000 + ((i * 977) % 2048));
  const floats = Float32Array.from({ length: count }, (_, i) => 0.003 + i * 0.0137);
  const scales = scaleDtype === 'float32' ? Buffer.from(floats.buffer) : Buffer.from(halfBits.buffer);
  const parts: Buffer[] = [noise(bytes, 1), scales, noise(how.layout === 'bytes' ? count : words * numGroups * 4, 7), int32(order ?? [])];
  if (changes.scales) parts[1] = changes.scales;
  if (changes.groupIndex) parts[3] = changes.groupIndex;
  const contents = parts.map((part) => Buffer.concat([Buffer.alloc(3), part]));
  const files = contents.map((content, i) => {
    writeFileSync(join(folder, `${name}-${i}`), content);
    return join(folder, `${name}-${i}`);
  });
  const [rowStride, groupStride] = how.layout === 'bytes' || isRows ? [numGroups, 1] : [1, how.numRows];
  const part = (file: number) => ({ file, byteOffset: 3 });
  const integers: StoredIntegers = {
    ...how,
    scales: { ...part(1), dtype: scaleDtype, rowStride: rowStride as number, groupStride: groupStride as number },
    zeros: hasZeros ? part(2) : null,
    groupIndex: order === undefined ? null : part(3),
  };
  return { files, contents, integers };
}

const whole = ({ numRows, numCols }: { numRows: number; numCols: number }) => ({
  rowBegin: 0,
  rowEnd: numRows,
  colBegin: 0,
  colEnd: numCols,
});
const sliceOf = (integers: StoredIntegers, numCols: number, range: Pick<TensorSlice, 'rowBegin' | 'rowEnd' | 'colBegin' | 'colEnd'>) =>
  ({ name: 'w', file: 0, byteOffset: 3, dtype: 'bfloat16', fp8: null, integers, numCols, ...range }) satisfies TensorSlice;

const shuffled = (numCols: number, groups: number) => Array.from({ length: numCols }, (_, i) => (i * 29 + (i >> 3)) % groups);
const matrices: Record<string, Matrix> = {
  'compressed int4': { layout: 'rows', bits: 4, numRows: 43, numCols: 150, groupSize: 32, hasZeros: false, zeroOffset: 8 },
  'compressed int4 with zero points': {
    layout: 'rows',
    bits: 4,
    numRows: 43,
    numCols: 150,
    groupSize: 64,
    hasZeros: true,
    zeroOffset: 0,
    scaleDtype: 'bfloat16',
  },
  'compressed int4 with an order': {
    layout: 'rows',
    bits: 4,
    numRows: 19,
    numCols: 96,
    groupSize: 32,
    hasZeros: true,
    zeroOffset: 0,
    order: shuffled(96, 3),
  },
  'compressed int8 in words': { layout: 'rows', bits: 8, numRows: 35, numCols: 141, groupSize: 141, hasZeros: true, zeroOffset: 0 },
  int8: { layout: 'bytes', bits: 8, numRows: 35, numCols: 141, groupSize: 141, hasZeros: false, zeroOffset: 0, scaleDtype: 'float32' },
  'int8 in groups with zero points': { layout: 'bytes', bits: 8, numRows: 21, numCols: 140, groupSize: 64, hasZeros: true, zeroOffset: 0 },
  AWQ: { layout: 'awq', bits: 4, numRows: 48, numCols: 140, groupSize: 32, hasZeros: true, zeroOffset: 0 },
  'AWQ without zero points': { layout: 'awq', bits: 4, numRows: 40, numCols: 64, groupSize: 128, hasZeros: false, zeroOffset: 8 },
  GPTQ: { layout: 'gptq', bits: 4, numRows: 48, numCols: 144, groupSize: 32, hasZeros: true, zeroOffset: 1 },
  'GPTQ v2 with an order': {
    layout: 'gptq',
    bits: 4,
    numRows: 40,
    numCols: 144,
    groupSize: 48,
    hasZeros: true,
    zeroOffset: 0,
    order: shuffled(144, 3),
  },
  'GPTQ of 8 bits': { layout: 'gptq', bits: 8, numRows: 36, numCols: 144, groupSize: 32, hasZeros: true, zeroOffset: 1 },
};

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
    const { files, contents, integers } = writeMatrix(name, matrix);
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
  const { files, contents, integers: many } = writeMatrix('tensor', matrix, { scales: Buffer.from(Float32Array.of(0.037).buffer) });
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
  const good = writeMatrix('good', matrix);
  t.ok(read(good.integers, good.files)());
  for (const [scale, text] of [
    [0, '0.000000'],
    [Number.NaN, 'nan'],
    [Number.POSITIVE_INFINITY, 'inf'],
  ] as const) {
    const values = new Float32Array(count).fill(1);
    values[matrix.numRows + 5] = scale;
    const { files, integers } = writeMatrix(`scale-${text}`, matrix, { scales: Buffer.from(values.buffer) });
    t.throws(read(integers, files), {
      code: 'ERR_CHECKPOINT',
      message: new RegExp(`finite scales .*tensor w .*${text} for row 5, group 1`),
    });
    t.ok(read(integers, files, 5)(), 'rows that do not need it');
  }
  for (const group of [-1, 3, 2 ** 31 - 1]) {
    const order = [...(matrix.order as readonly number[])];
    order[143] = group;
    const { files, integers } = writeMatrix(`group-${group}`, matrix, { groupIndex: int32(order) });
    t.throws(read(integers, files), { code: 'ERR_CHECKPOINT', message: new RegExp(`groups 0 to 2 .*tensor w .*${group} for column 143`) });
  }
  for (const [i, part] of ['integers', 'scales', 'zero points', 'group indices'].entries()) {
    const { files, contents, integers } = writeMatrix('short', matrix);
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
