/** Files of llama.cpp's format, GGUF version 3: typed metadata, tensor descriptions, then tensors of quantized blocks. */
import { writeFileSync } from 'node:fs';
import { numValuesOf } from '../../../bin/bench/synthetic-values.ts';
import type { GgmlType } from './ggml-blocks.ts';

/** A value of metadata. An array of strings, or of numbers, which are 32-bit integers. */
export type GgufValue =
  | { readonly uint32: number }
  | { readonly float32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly int32s: readonly number[] };

export interface GgufTensor {
  readonly name: string;
  /** `[numRows, numCols]` or `[size]`. */
  readonly shape: readonly number[];
  readonly type: GgmlType;
  /** bf16 values of `numRows` rows from `firstRow`, as they are to lie in the file. */
  readonly rows: (firstRow: number, numRows: number) => Uint16Array;
}

const alignment = 32;
/** Values that are written at once, at least a row. */
const chunkValues = 1 << 18;

const aligned = (bytes: number) => Math.ceil(bytes / alignment) * alignment;

/** Bytes of a tensor in the file. */
export function tensorBytes({ shape, type }: Pick<GgufTensor, 'shape' | 'type'>): number {
  return (numValuesOf(shape) / type.blockSize) * type.blockBytes;
}

/**
 * Writes a file. Other work may run between tensors.
 * @param file - a descriptor, at the begin of the file
 * @param onProgress - bytes of tensors written so far, and in all
 */
export async function writeGguf(
  file: number,
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<void> {
  writeFileSync(file, padded(headerOf(metadata, tensors)));
  const totalBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0);
  let doneBytes = 0;
  for (const tensor of tensors) {
    for (const piece of blocksOf(tensor)) writeFileSync(file, piece);
    const bytes = tensorBytes(tensor);
    writeFileSync(file, Buffer.alloc(aligned(bytes) - bytes));
    doneBytes += bytes;
    onProgress(doneBytes, totalBytes);
    await new Promise(setImmediate);
  }
}

function headerOf(metadata: Readonly<Record<string, GgufValue>>, tensors: readonly GgufTensor[]): Buffer {
  const entries = Object.entries(metadata);
  const parts = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(entries.length)];
  // One by one: a vocabulary has more strings than a call may have arguments.
  for (const [key, value] of entries) for (const part of [text(key), ...typedValue(value)]) parts.push(part);
  let offset = 0;
  for (const tensor of tensors) {
    const { name, shape, type } = tensor;
    // The dimension whose elements are adjacent comes first.
    parts.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type.id), u64(offset));
    offset += aligned(tensorBytes(tensor));
  }
  return Buffer.concat(parts);
}

/** Type and value, by the type's number in the format. */
function typedValue(value: GgufValue): Buffer[] {
  if ('uint32' in value) return [u32(4), u32(value.uint32)];
  if ('float32' in value) return [u32(6), f32(value.float32)];
  if ('bool' in value) return [u32(7), Buffer.from([value.bool ? 1 : 0])];
  if ('string' in value) return [u32(8), text(value.string)];
  if ('strings' in value) return [u32(9), u32(8), u64(value.strings.length), ...value.strings.map(text)];
  return [u32(9), u32(5), u64(value.int32s.length), ...value.int32s.map(i32)];
}

/** The bytes of a tensor, in pieces of whole rows. */
function* blocksOf(tensor: GgufTensor): Generator<Uint8Array> {
  const { shape, type, rows } = tensor;
  const numCols = shape.at(-1) as number;
  const numRows = numValuesOf(shape) / numCols;
  const rowsAtOnce = Math.max(1, Math.floor(chunkValues / numCols));
  for (let row = 0; row < numRows; row += rowsAtOnce) {
    const words = rows(row, Math.min(rowsAtOnce, numRows - row));
    yield type.quantize === null ? new Uint8Array(words.buffer, words.byteOffset, words.byteLength) : quantized(words, type);
  }
}

function quantized(words: Uint16Array, { blockSize, blockBytes, quantize }: GgmlType): Uint8Array {
  const values = new Float32Array(words.length);
  const bits = new Uint32Array(values.buffer);
  // A bf16 is the upper half of a float.
  for (let i = 0; i < words.length; i++) bits[i] = (words[i] as number) << 16;
  const out = new Uint8Array((values.length / blockSize) * blockBytes);
  for (let at = 0, to = 0; at < values.length; at += blockSize, to += blockBytes) quantize?.(values, at, out, to);
  return out;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(aligned(bytes.length) - bytes.length)]);
}

/** A number of so many bytes, as `write` puts it at the beginning of a buffer. */
function numberBytes(size: number, write: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.alloc(size);
  write(bytes);
  return bytes;
}

const u32 = (value: number) => numberBytes(4, (bytes) => bytes.writeUInt32LE(value));
const i32 = (value: number) => numberBytes(4, (bytes) => bytes.writeInt32LE(value));
const f32 = (value: number) => numberBytes(4, (bytes) => bytes.writeFloatLE(value));
const u64 = (value: number) => numberBytes(8, (bytes) => bytes.writeBigUInt64LE(BigInt(value)));

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}
