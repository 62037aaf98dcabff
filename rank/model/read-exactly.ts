/** Reads of files. */
import { readSync } from 'node:fs';

/** Fills `bytes` from `position` of an open file on. @throws Error where the file ends before. */
export function readExactly<T extends Uint8Array>(file: number, bytes: T, position: number): T {
  for (let read = 0; read < bytes.length; ) {
    const count = readSync(file, bytes, read, bytes.length - read, position + read);
    if (count === 0) throw new Error(`end of file at byte ${position + read}`);
    read += count;
  }
  return bytes;
}
