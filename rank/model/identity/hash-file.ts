/** Hashes the segments of a file: a small one here, another in threads, so that the event loop goes on. */
import { closeSync, openSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { cpuQuota } from '../../../protocol/cgroups.ts';
import { startThread } from '../../thread.ts';
import { hashSegment } from './hash-segment.ts';
import type { HashWork } from './hash-thread.ts';
import { digestBytes, type Segment, segmentBytes } from './segments.ts';

/** Bytes up to which a file is hashed in less time than threads take to start. */
export const smallBytes = 4 * segmentBytes;
/** More threads than this read no disk faster. */
const maxThreads = 8;
const reportMs = 100;

/** Called some times a second with the bytes hashed so far. */
export type OnHashed = (numBytes: number) => void;

/**
 * @returns `[numSegments, 32]` the digests
 * @throws Error when the file cannot be read, or ends early.
 */
export async function hashFile(path: string, segments: readonly Segment[], onHashed: OnHashed): Promise<Uint8Array> {
  const totalBytes = segments.reduce((sum, { numBytes }) => sum + numBytes, 0);
  return totalBytes > smallBytes ? hashInThreads(path, segments, onHashed) : hashHere(path, segments);
}

/** `hashFile` of a small file, at once. */
export function hashHere(path: string, segments: readonly Segment[]): Uint8Array {
  const digests = new Uint8Array(segments.length * digestBytes);
  const buffer = new Uint8Array(Math.max(0, ...segments.map(({ numBytes }) => numBytes)));
  const file = openSync(path, 'r');
  try {
    for (const [i, segment] of segments.entries()) digests.set(hashSegment(file, segment, buffer), i * digestBytes);
  } finally {
    closeSync(file);
  }
  return digests;
}

async function hashInThreads(path: string, segments: readonly Segment[], onHashed: OnHashed): Promise<Uint8Array> {
  const work: HashWork = {
    path,
    segments: Float64Array.from(segments.flatMap(({ byteOffset, numBytes }) => [byteOffset, numBytes])),
    digests: new Uint8Array(new SharedArrayBuffer(segments.length * digestBytes)),
    progress: new BigInt64Array(new SharedArrayBuffer(16)),
  };
  const numThreads = Math.max(1, Math.min(maxThreads, availableParallelism(), Math.floor(cpuQuota()), segments.length));
  const threads = Array.from({ length: numThreads }, () =>
    startThread('./hash-thread', import.meta.url, { name: 'hash', workerData: work }),
  );
  const timer = setInterval(() => onHashed(Number(Atomics.load(work.progress, 1))), reportMs);
  try {
    await Promise.all(threads.map(ended));
  } finally {
    clearInterval(timer);
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
  return work.digests;
}

function ended(thread: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    thread.once('error', reject);
    thread.once('exit', () => resolve());
  });
}
