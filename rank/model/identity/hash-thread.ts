/** One of the threads that hash a file: takes the next segment until none is left. */
import { closeSync, openSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { hashSegment } from './hash-segment.ts';
import { digestBytes, segmentBytes } from './segments.ts';

/** Shared by the threads of one file. */
export interface HashWork {
  readonly path: string;
  /** `[numSegments, 2]` offset and size in bytes. */
  readonly segments: Float64Array;
  /** `[numSegments, 32]` */
  readonly digests: Uint8Array;
  /** Index of the next segment, and bytes hashed so far. */
  readonly progress: BigInt64Array;
}

const { path, segments, digests, progress } = workerData as HashWork;
const file = openSync(path, 'r');
const buffer = new Uint8Array(segmentBytes);
for (;;) {
  const i = Number(Atomics.add(progress, 0, 1n));
  if (2 * i >= segments.length) break;
  const [byteOffset, numBytes] = segments.subarray(2 * i, 2 * i + 2) as unknown as [number, number];
  digests.set(hashSegment(file, { byteOffset, numBytes }, buffer), i * digestBytes);
  Atomics.add(progress, 1, BigInt(numBytes));
}
closeSync(file);
