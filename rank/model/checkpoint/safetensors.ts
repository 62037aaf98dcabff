/** The header of a safetensors file, fully validated: names, types, shapes and offsets of its tensors. */

import { closeSync, openSync } from 'node:fs';
import { isObject } from '../../../protocol/checks.ts';
import { describeJson, NdsError } from '../../../protocol/errors.ts';
import { fileSize, findDuplicateKey, type JsonObject, parseJsonObject } from '../json.ts';
import { readExactly } from '../read-exactly.ts';

/** A tensor in a file. */
export interface StoredTensor {
  readonly name: string;
  /** Path of its file. */
  readonly path: string;
  /** Element type as safetensors spells it: `F32`, `BF16`, … */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Offset of its data in the file. */
  readonly byteOffset: number;
  readonly numBytes: number;
}

/** Bytes per element of each dtype of the format that has whole bytes. */
const elementBytes = new Map(
  Object.entries({
    BOOL: 1,
    U8: 1,
    I8: 1,
    F8_E4M3: 1,
    F8_E5M2: 1,
    F8_E8M0: 1,
    U16: 2,
    I16: 2,
    F16: 2,
    BF16: 2,
    U32: 4,
    I32: 4,
    F32: 4,
    U64: 8,
    I64: 8,
    F64: 8,
  }),
);
/** Max header size, by the format. */
const maxHeaderBytes = 100_000_000;
const lengthBytes = 8;

/**
 * Reads only the header of the file at `path`.
 * @throws NdsError `ERR_CHECKPOINT` when the file is missing, truncated or contradicts itself.
 */
export function readSafetensors(path: string): StoredTensor[] {
  const size = fileSize(path, 'ERR_CHECKPOINT');
  if (size === undefined) throw bad(path, 'a file', 'nothing there');
  const header = readHeader(path, size);
  const { object, text } = parseJsonObject(header, `the header of ${path}`, 'ERR_CHECKPOINT');
  if (text[0] !== '{') throw bad(path, 'a header that begins with {', describeJson(text.slice(0, 8)));
  return parseHeader(object, text, path, lengthBytes + header.length, size);
}

/** Layout: 8 bytes little-endian header length, header, data. */
function readHeader(path: string, size: number): Uint8Array {
  if (size < lengthBytes) throw bad(path, `at least ${lengthBytes} bytes`, `${size}`);
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const length = Number(readExactly(file, Buffer.alloc(lengthBytes), 0).readBigUInt64LE());
    if (length > maxHeaderBytes) throw bad(path, `a header of at most ${maxHeaderBytes} bytes`, `one of ${length}`);
    if (length > size - lengthBytes) throw bad(path, `a header within its ${size} bytes`, `one of ${length} bytes`);
    return readExactly(file, Buffer.alloc(length), lengthBytes);
  } catch (error) {
    if (error instanceof NdsError) throw error;
    throw new NdsError('ERR_CHECKPOINT', `Expected to read ${path} but received ${(error as Error).message}`, { cause: error });
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Linear in the number of entries, except for one sort. */
function parseHeader(header: JsonObject, text: string, path: string, dataStart: number, size: number): StoredTensor[] {
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) throw bad(path, 'every key of the header once', `${describeJson(duplicate)} twice`);
  const entries: { tensor: StoredTensor; begin: number; end: number }[] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') {
      if (!isObject(entry)) throw bad(path, 'an object for __metadata__', describeJson(entry));
    } else {
      entries.push(parseEntry(name, entry, path, dataStart));
    }
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let next = 0;
  for (const { tensor, begin, end } of entries) {
    if (begin !== next) {
      throw bad(
        path,
        `tensor ${describeJson(tensor.name)} to begin at byte ${next} of the data`,
        `${begin}: ${begin < next ? 'an overlap' : 'a gap'}`,
      );
    }
    next = end;
  }
  if (next !== size - dataStart) throw bad(path, `${next} bytes of data, as its header says,`, `${size - dataStart}`);
  return entries.map(({ tensor }) => tensor);
}

function parseEntry(name: string, entry: unknown, path: string, dataStart: number): { tensor: StoredTensor; begin: number; end: number } {
  const what = `tensor ${describeJson(name)}`;
  if (!isObject(entry)) throw bad(path, `an object for ${what}`, describeJson(entry));
  const own = (key: string) => (Object.hasOwn(entry, key) ? entry[key] : undefined);
  const dtype = own('dtype');
  const bytes = typeof dtype === 'string' ? elementBytes.get(dtype) : undefined;
  if (bytes === undefined) throw bad(path, `a dtype among ${[...elementBytes.keys()].join(', ')} for ${what}`, describeJson(dtype));
  const shape = own('shape');
  if (!isCounts(shape)) throw bad(path, `a list of sizes for the shape of ${what}`, describeJson(shape));
  const offsets = own('data_offsets');
  if (!isCounts(offsets) || offsets.length !== 2) throw bad(path, `two byte offsets for ${what}`, describeJson(offsets));
  const [begin, end] = offsets as [number, number];
  // A product past 2^53 is inexact, but exceeds any range of offsets.
  const needed = shape.reduce((product, n) => product * n, bytes);
  if (end - begin !== needed)
    throw bad(path, `${needed} bytes for ${what} of ${dtype} ${describeJson(shape)}`, `offsets ${describeJson(offsets)}`);
  return { tensor: { name, path, dtype: dtype as string, shape, byteOffset: dataStart + begin, numBytes: needed }, begin, end };
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

function bad(path: string, expected: string, received: string): NdsError {
  return new NdsError('ERR_CHECKPOINT', `Expected ${expected} in ${path} but received ${received}`);
}
