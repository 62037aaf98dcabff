/** Checkpoints of random weights, of a known model's shape, that end with the process that made them. */
import { closeSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { openNameless } from './nameless-file.ts';
import { configOf, shapes, type TensorShape, tensorsOf } from './shapes.ts';
import { numValuesOf, SyntheticValues } from './synthetic-values.ts';

/**
 * Writes a model folder below `parent`, bf16, the same bytes for the same shape.
 *
 * On Linux the weights have no name, so that they end with the process, however it ends, once no rank has them mapped.
 * Elsewhere they are a file in the folder.
 *
 * @param onProgress - bytes written so far, and in all
 * @throws NdsError `ERR_SYSTEM` where they cannot be written.
 */
export function makeModel(shape: string, parent: string, onProgress: (doneBytes: number, totalBytes: number) => void): string {
  const sizes = shapes[shape];
  if (sizes === undefined) throw new NdsError('ERR_INTERNAL', `Expected a shape but received ${shape}`);
  const folder = join(parent, `shape-${shape}`);
  try {
    mkdirSync(folder);
    writeFileSync(join(folder, 'config.json'), JSON.stringify(configOf(sizes)));
    writeWeights(join(folder, 'model.safetensors'), tensorsOf(sizes), onProgress);
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    const message = error instanceof Error ? error.message : String(error);
    throw new NdsError('ERR_SYSTEM', `Expected room for the weights of ${shape} in ${parent} but received ${message}`, { cause: error });
  }
  return folder;
}

function writeWeights(path: string, tensors: readonly TensorShape[], onProgress: (doneBytes: number, totalBytes: number) => void): void {
  const sizes = tensors.map(({ shape }) => 2 * numValuesOf(shape));
  const totalBytes = sizes.reduce((sum, bytes) => sum + bytes, 0);
  const { file, isNameless } = openNameless(path);
  try {
    writeFileSync(file, headerOf(tensors, sizes));
    const values = new SyntheticValues(tensors);
    let doneBytes = 0;
    tensors.forEach((_, i) => {
      for (const piece of values.pieces(i)) writeFileSync(file, new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength));
      doneBytes += sizes[i] as number;
      onProgress(doneBytes, totalBytes);
    });
  } catch (error) {
    closeSync(file);
    throw error;
  }
  // A nameless file stays open, as nothing else holds the weights.
  if (!isNameless) closeSync(file);
}

/** Length and JSON header of a safetensors file. */
function headerOf(tensors: readonly TensorShape[], sizes: readonly number[]): Uint8Array {
  let end = 0;
  const entries = tensors.map(({ name, shape }, i) => {
    const begin = end;
    end += sizes[i] as number;
    return [name, { dtype: 'BF16', shape, data_offsets: [begin, end] }] as const;
  });
  const json = JSON.stringify(Object.fromEntries(entries));
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text]);
}
