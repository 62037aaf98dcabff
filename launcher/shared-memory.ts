/** The file that the ranks of one node share, reserved whole when it is opened: a full folder is seen before a load. */
import { closeSync, openSync, statfsSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import { ownedName } from './owned-names.ts';

/** An open file, and where it lies. */
export interface SharedMemory {
  readonly fd: number;
  readonly path: string;
  /** Why it is not in the first folder; null where it is. */
  readonly notice: string | null;
}

const kibibyte = 1024;

/** Folders for shared memory, the best first. */
export function memoryFolders(): string[] {
  return ['/dev/shm', tmpdir()];
}

/**
 * Bytes that `numRanks` ranks of a node share; a rank without others needs none. An upper bound of the layout in
 * native/comm/shm_region.h, where a rank has two slots and a block, with two pages for the header and for rounding; a
 * file that were too small would grow there.
 */
export function sharedMemoryBytes(numRanks: number): number {
  return numRanks < 2 ? 0 : 2 * 4 * kibibyte + numRanks * (2 * 256 * kibibyte + 512);
}

/**
 * Opens a new file of `sharedMemoryBytes(numRanks)` zeros in the first folder with room for it.
 *
 * @throws NdsError `ERR_SYSTEM` with what each folder lacks, and how a container gets more.
 */
export function openSharedMemory(numRanks: number, folders: readonly string[] = memoryFolders()): SharedMemory {
  const numBytes = sharedMemoryBytes(numRanks);
  const refusals: string[] = [];
  for (const folder of folders) {
    const path = join(folder, ownedName());
    try {
      const fd = reserve(path, numBytes);
      const notice = `shared memory is in ${folder}, not in ${folders[0]}: ${refusals[0]}; ${remedy(numBytes)}`;
      return { fd, path, notice: refusals.length === 0 ? null : notice };
    } catch (error) {
      refusals.push(`${(error as Error).message}${describeRoom(folder)}`);
    }
  }
  const size = mebibytes(numBytes);
  throw new NdsError(
    'ERR_SYSTEM',
    `Expected ${size} for the shared memory of ${numRanks} ranks but received ${refusals.join(' and ')}; ${remedy(numBytes)}, or name a folder with room in TMPDIR`,
  );
}

/** Opens a new file of zeros. These are written, as a file's size alone reserves nothing on a tmpfs and Node cannot allocate. */
export function reserve(path: string, numBytes: number): number {
  const fd = openSync(path, 'wx+', 0o600);
  const zeros = Buffer.alloc(Math.min(numBytes, 1024 * kibibyte));
  try {
    for (let done = 0; done < numBytes; ) done += writeSync(fd, zeros, 0, Math.min(zeros.length, numBytes - done), done);
    return fd;
  } catch (error) {
    unlinkSync(path);
    closeSync(fd);
    throw error;
  }
}

function describeRoom(folder: string): string {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return `, ${mebibytes(bavail * bsize)} free in ${folder}`;
  } catch {
    return '';
  }
}

function remedy(numBytes: number): string {
  const enough = Math.max(64, Math.ceil(numBytes / 2 ** 20) * 2);
  return `give a container more by docker run --shm-size=${enough}m, a pod by an emptyDir with medium Memory at /dev/shm`;
}

function mebibytes(numBytes: number): string {
  return `${(numBytes / 2 ** 20).toFixed(1)} MiB`;
}
