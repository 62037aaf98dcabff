/** Checkpoints of random weights, of a known model's shape, that end with the process that made them. */
import { closeSync, mkdirSync, openSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import { configOf, shapes, type TensorShape, tensorsOf } from './shapes.ts';

/** Distinct values of a tensor, a prime: rows of a matrix differ. */
const period = 1_048_583;

/**
 * Writes a model folder below `parent`, bf16, the same bytes for the same shape.
 *
 * On Linux the weights have no name: the folder has a link to this process's descriptor of them, so that they end with
 * the process, however it ends, once no rank has them mapped. Elsewhere they are a file in the folder.
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
  const sizes = tensors.map(({ shape }) => 2 * shape.reduce((size, length) => size * length, 1));
  const totalBytes = sizes.reduce((sum, bytes) => sum + bytes, 0);
  const isLinux = process.platform === 'linux';
  const created = isLinux ? `${path}.new` : path;
  const file = openSync(created, 'wx+', 0o600);
  try {
    if (isLinux) {
      unlinkSync(created);
      symlinkSync(`/proc/${process.pid}/fd/${file}`, path);
    }
    writeFileSync(file, headerOf(tensors, sizes));
    const noise = normals();
    const noises = new Map<number, Uint8Array>();
    let doneBytes = 0;
    tensors.forEach(({ deviation }, i) => {
      const values = noises.get(deviation ?? 0) ?? scaled(noise, deviation);
      noises.set(deviation ?? 0, values);
      const size = sizes[i] as number;
      // Each tensor begins elsewhere in the values.
      for (let done = 0, begin = (2 * 7919 * i) % values.length; done < size; begin = 0) {
        const piece = values.subarray(begin, begin + Math.min(values.length - begin, size - done));
        writeFileSync(file, piece);
        done += piece.length;
      }
      doneBytes += size;
      onProgress(doneBytes, totalBytes);
    });
  } catch (error) {
    closeSync(file);
    throw error;
  }
  // On Linux the descriptor stays open, as nothing else holds the weights.
  if (!isLinux) closeSync(file);
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

/** `[period]` values near a normal distribution of deviation one: sums of four uniforms, by xorshift. */
function normals(): Float32Array {
  let state = 2463534242;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  // Such a sum has the variance 1/3.
  return Float32Array.from({ length: period }, () => (next() + next() + next() + next() - 2) * 3 ** 0.5);
}

/** Values times a deviation as bf16, rounded towards zero; ones for null. */
function scaled(values: Float32Array, deviation: number | null): Uint8Array {
  const floats = values.map((value) => (deviation === null ? 1 : value * deviation));
  // The upper half of a float is its bf16.
  return new Uint8Array(Uint16Array.from(new Uint32Array(floats.buffer), (word) => word >>> 16).buffer);
}
