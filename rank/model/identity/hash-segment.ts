/** SHA-256 of one segment of an open file. */
import { createHash } from 'node:crypto';
import { readExactly } from '../read-exactly.ts';
import type { Segment } from './segments.ts';

/**
 * @param buffer - at least as long as the segment
 * @throws Error when the file ends before the segment.
 */
export function hashSegment(file: number, { byteOffset, numBytes }: Segment, buffer: Uint8Array): Uint8Array {
  return createHash('sha256')
    .update(readExactly(file, buffer.subarray(0, numBytes), byteOffset))
    .digest();
}
