/** The tree of SHA-256 under a model's hash: segments, tensors, model. Pure. */
import { createHash } from 'node:crypto';
import type { StoredTensor } from '../checkpoint/safetensors.ts';

/** Bytes of a segment: what one thread hashes at a time. The last segment of a tensor is shorter. */
export const segmentBytes = 4 * 2 ** 20;
/** Bytes of a SHA-256. */
export const digestBytes = 32;

/** Bytes of a file that are hashed together. */
export interface Segment {
  readonly byteOffset: number;
  readonly numBytes: number;
}

/** A tensor's segments, counted from its first byte, so that they do not depend on the file that holds it. */
export function segmentsOf({ byteOffset, numBytes }: Pick<StoredTensor, 'byteOffset' | 'numBytes'>): Segment[] {
  return Array.from({ length: Math.ceil(numBytes / segmentBytes) }, (_, i) => ({
    byteOffset: byteOffset + i * segmentBytes,
    numBytes: Math.min(segmentBytes, numBytes - i * segmentBytes),
  }));
}

/** Digest of each tensor, in hexadecimal, of `[numSegments]` digests of all tensors' segments in turn. */
export function tensorDigests(tensors: readonly StoredTensor[], digests: Uint8Array): Map<string, string> {
  let begin = 0;
  return new Map(
    tensors.map((tensor) => {
      const end = begin + segmentsOf(tensor).length * digestBytes;
      const digest = createHash('sha256').update(digests.subarray(begin, end)).digest('hex');
      begin = end;
      return [tensor.name, digest];
    }),
  );
}

/** Hash of config.json and of each tensor's name, type, shape and digest, whatever the order of `tensors`. */
export function combine(config: Uint8Array, tensors: readonly StoredTensor[], digests: ReadonlyMap<string, string>): string {
  const hash = createHash('sha256').update(config);
  for (const { name, dtype, shape } of [...tensors].sort((a, b) => (a.name < b.name ? -1 : 1)))
    hash.update(JSON.stringify([name, dtype, shape, digests.get(name)]));
  return hash.digest('hex');
}
