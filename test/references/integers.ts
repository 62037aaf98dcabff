/** Values of a matrix that is stored as integers with scales, by the definition of each layout. */
import type { StoredIntegers, TensorSlice } from '../../rank/program-spec.ts';
import { readElement } from './elements.ts';
import { toBf16 } from './fp8.ts';

/** Bits of a word at which AWQ has row 0 … 7 of its eight. */
const awqBits = [0, 16, 4, 20, 8, 24, 12, 28];

/** bf16((q − z) · scale), the product in fp32, of a row and column of the whole matrix. */
export function integerValue(files: readonly Buffer[], slice: TensorSlice, integers: StoredIntegers, row: number, col: number): number {
  const { code, scale } = integerParts(files, slice, integers, row, col);
  return toBf16(Math.fround(code * scale));
}

/** q − z, scale and group of a row and column of the whole matrix. */
export function integerParts(files: readonly Buffer[], slice: TensorSlice, integers: StoredIntegers, row: number, col: number) {
  const { groupIndex, groupSize, scales } = integers;
  const group = groupIndex === null ? Math.floor(col / groupSize) : fileOf(files, groupIndex).readInt32LE(groupIndex.byteOffset + col * 4);
  const scale = readElement(fileOf(files, scales), scales.byteOffset, row * scales.rowStride + group * scales.groupStride, scales.dtype);
  const q = quantized(fileOf(files, slice), slice.byteOffset, integers, slice.numCols, row, col);
  return { code: q - zeroPoint(files, integers, slice.numCols, row, group), scale, group };
}

const fileOf = (files: readonly Buffer[], { file }: { readonly file: number }) => files[file] as Buffer;

function field(word: number, bit: number, bits: number): number {
  return Math.floor(word / 2 ** bit) % 2 ** bits;
}

function quantized(file: Buffer, start: number, integers: StoredIntegers, numCols: number, row: number, col: number): number {
  const { layout, bits, numRows } = integers;
  const perWord = 32 / bits;
  const word = (index: number) => file.readUInt32LE(start + index * 4);
  switch (layout) {
    case 'bytes':
      return file.readInt8(start + row * numCols + col);
    case 'rows':
      return field(word(row * Math.ceil(numCols / perWord) + Math.floor(col / perWord)), (col % perWord) * bits, bits);
    case 'gptq':
      return field(word(Math.floor(col / perWord) * numRows + row), (col % perWord) * bits, bits);
    case 'awq':
      return field(word((col * numRows) / 8 + Math.floor(row / 8)), awqBits[row % 8] as number, 4);
  }
}

function zeroPoint(files: readonly Buffer[], integers: StoredIntegers, numCols: number, row: number, group: number): number {
  const { layout, bits, numRows, groupSize, scales, zeros, zeroOffset } = integers;
  if (zeros === null) return zeroOffset;
  const file = fileOf(files, zeros);
  if (layout === 'bytes') return file.readInt8(zeros.byteOffset + row * scales.rowStride + group * scales.groupStride) + zeroOffset;
  const perWord = 32 / bits;
  const rowWord = Math.floor(row / perWord);
  const index = layout === 'rows' ? rowWord * Math.ceil(numCols / groupSize) + group : (group * numRows) / perWord + rowWord;
  const bit = layout === 'awq' ? (awqBits[row % 8] as number) : (row % perWord) * bits;
  return field(file.readUInt32LE(zeros.byteOffset + index * 4), bit, bits) + zeroOffset;
}
