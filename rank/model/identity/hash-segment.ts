/** SHA-256 of one segment of an open file. */
import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import type { Segment } from './segments.ts';

/**
 * @param buffer - at least as long as the segment
 * @throws Error when the file ends before the segment.
 */
export function hashSegment(file: number, { byteOffset, numBytes }: Segment, buffer: Uint8Array): Uint8Array {
  for (let read = 0; read < numBytes; ) {
    const count = readSync(file, buffer, read, numBytes - read, byteOffset + read);
    if (count === 0) throw new Error(`the file ended at byte ${byteOffset + read}`);
    read += count;
  }
  return createHash('sha256').update(buffer.subarray(0, numBytes)).digest();
}
