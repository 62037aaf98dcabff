/** Whether two folders hold the same model, without reading all of it. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { readCheckpoint } from './checkpoint/checkpoint.ts';
import type { StoredTensor } from './checkpoint/safetensors.ts';

/** Bytes from the start of each tensor that count: enough to tell a model from one that was trained on. */
const sampleBytes = 256;

/**
 * A hash of config.json and of every tensor's name, type, shape and first bytes. Where the folder lies, how the weights are spread over
 * files and when they were written does not matter.
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

/** A byte an element is the least that a tensor can have. */
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
