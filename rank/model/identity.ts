/** A model's identity: a hash that does not read all of its weights. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { readCheckpoint } from './checkpoint/checkpoint.ts';
import type { StoredTensor } from './checkpoint/safetensors.ts';

/** Bytes hashed from the start of each tensor: enough to tell a model from a fine-tuned one. */
const sampleBytes = 256;

/**
 * SHA-256 of config.json and of every tensor's name, type, shape and first bytes. It depends neither on the folder's
 * path, nor on sharding, nor on file times.
 * @throws NdsError as `readCheckpoint`.
 */
export function modelHash(folder: string): string {
  const hash = createHash('sha256').update(readFileSync(join(folder, 'config.json')));
  const tensors = [...readCheckpoint(folder).values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const files = new Map<string, number>();
  try {
    for (const tensor of tensors) {
      const file = files.get(tensor.path) ?? openSync(tensor.path, 'r');
      files.set(tensor.path, file);
      hash.update(JSON.stringify([tensor.name, tensor.dtype, tensor.shape])).update(sample(tensor, file));
    }
  } finally {
    for (const file of files.values()) closeSync(file);
  }
  return hash.digest('hex');
}

/** The first bytes of a tensor, at most one per element, the smallest element size. */
function sample({ byteOffset, shape }: StoredTensor, file: number): Uint8Array {
  const bytes = Buffer.alloc(
    Math.min(
      sampleBytes,
      shape.reduce((a, b) => a * b, 1),
    ),
  );
  let read = 0;
  for (let count = -1; read < bytes.length && count !== 0; read += count) {
    count = readSync(file, bytes, read, bytes.length - read, byteOffset + read);
  }
  return bytes.subarray(0, read);
}
