/** Matrices that are stored as integers, of every layout: pseudo-random parts in files of their own. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StoredIntegers, TensorSlice } from '../../rank/program-spec.ts';

export type Matrix = Omit<StoredIntegers, 'scales' | 'zeros' | 'groupIndex'> & {
  readonly numCols: number;
  readonly hasZeros: boolean;
  readonly order?: readonly number[];
  readonly scaleDtype?: 'float32' | 'float16' | 'bfloat16';
};

/** Bytes that look random, the same in every run. */
const noise = (count: number, seed: number) => Buffer.from(Uint8Array.from({ length: count }, (_, i) => ((i + seed) * 2654435761) >>> 13));
export const int32 = (values: readonly number[]) => Buffer.from(Int32Array.from(values).buffer);

const partNames = ['integers', 'scales', 'zeros', 'groupIndex'] as const;
export type Part = (typeof partNames)[number];

/** The parts of a matrix in files of their own, each 3 bytes from its start. */
export function writeMatrix(folder: string, name: string, matrix: Matrix, changes: Partial<Record<Part, Buffer>> = {}) {
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
  // fp16 and bf16 with exponents around 2^-6; fp32 of any fraction.
  const [first, range] = scaleDtype === 'bfloat16' ? [0x3c00, 512] : [0x2000, 2048];
  const halfBits = Uint16Array.from({ length: count }, (_, i) => first + ((i * 977) % range));
  const floats = Float32Array.from({ length: count }, (_, i) => 0.003 + i * 0.0137);
  const scales = scaleDtype === 'float32' ? Buffer.from(floats.buffer) : Buffer.from(halfBits.buffer);
  const parts: Buffer[] = [noise(bytes, 1), scales, noise(how.layout === 'bytes' ? count : words * numGroups * 4, 7), int32(order ?? [])];
  const contents = parts.map((part, i) => Buffer.concat([Buffer.alloc(3), changes[partNames[i] as Part] ?? part]));
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

export const whole = ({ numRows, numCols }: { numRows: number; numCols: number }) => ({
  rowBegin: 0,
  rowEnd: numRows,
  colBegin: 0,
  colEnd: numCols,
});
export const sliceOf = (
  integers: StoredIntegers,
  numCols: number,
  range: Pick<TensorSlice, 'rowBegin' | 'rowEnd' | 'colBegin' | 'colEnd'>,
) => ({ name: 'w', file: 0, byteOffset: 3, dtype: 'bfloat16', fp8: null, integers, numCols, ...range }) satisfies TensorSlice;

/** The group of each column of an order that is none of the file's. */
export const shuffled = (numCols: number, groups: number) => Array.from({ length: numCols }, (_, i) => (i * 29 + (i >> 3)) % groups);
export const matrices: Record<string, Matrix> = {
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
