/** The folder of packed shards in the user's cache: listing, use, keeping, eviction. */
import { closeSync, mkdirSync, openSync, readdirSync, readSync, rmSync, statfsSync, statSync, utimesSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { isRunning } from '../../protocol/running.ts';
import { cacheFolder } from '../native.ts';
import { headBytes, parseLabel, type ShardLabel } from './entry-header.ts';
import { type CacheFile, chooseEvicted, isAbandoned } from './eviction.ts';

/** A shard of the cache. */
export interface ListedShard extends CacheFile {
  /** Null for a damaged file. */
  readonly label: ShardLabel | null;
}

export const shardFolder = () => join(cacheFolder(), 'shards');

/** Path of the file with a key. */
export const entryPath = (key: Uint8Array) => join(shardFolder(), `${Buffer.from(key).toString('hex')}.shard`);

const entriesOf = (folder: string) => filesOf(folder).filter(({ name }) => /^[0-9a-f]{64}\.shard$/.test(name));

function filesOf(folder: string): CacheFile[] {
  return namesOf(folder).flatMap((name) => {
    const found = statSync(join(folder, name), { throwIfNoEntry: false });
    return found?.isFile() ? [{ name, bytes: found.size, usedAtMs: found.mtimeMs }] : [];
  });
}

function namesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Shards of the cache, those used last first. */
export function listShards(folder = shardFolder()): ListedShard[] {
  return entriesOf(folder)
    .sort((a, b) => b.usedAtMs - a.usedAtMs)
    .map((file) => ({ ...file, label: labelOf(join(folder, file.name)) }));
}

function labelOf(path: string): ShardLabel | null {
  const file = openSync(path, 'r');
  try {
    const head = new Uint8Array(headBytes);
    return parseLabel(head.subarray(0, readSync(file, head, 0, headBytes, 0)));
  } finally {
    closeSync(file);
  }
}

/** Notes that an entry was used. The owner of a cache that cannot be written decides what stays. */
export function touch(path: string): void {
  try {
    utimesSync(path, new Date(), new Date());
  } catch {}
}

/**
 * Makes room for a file and drops what dead writers left.
 * @throws Error where the folder cannot be written, or its disk has no room for twice the file.
 */
export function makeRoom(bytes: number, folder = shardFolder()): void {
  mkdirSync(folder, { recursive: true });
  dropAbandoned(folder);
  const { bavail, bsize } = statfsSync(folder);
  if (2 * bytes > bavail * bsize) throw new Error(`room for ${2 * bytes} bytes is needed and ${bavail * bsize} are free`);
}

/** Makes a written file durable and then an entry, and drops others while all are more than `maxBytes`. */
export async function keepFile(temporary: string, entry: string, maxBytes: number): Promise<void> {
  const file = await open(temporary, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, entry);
  const folder = dirname(entry);
  for (const name of chooseEvicted(entriesOf(folder), maxBytes, basename(entry))) rmSync(join(folder, name), { force: true });
}

/** Removes temporary files whose writers are gone. */
export function dropAbandoned(folder = shardFolder()): void {
  const abandoned = filesOf(folder).filter((file) => isAbandoned(file, hostname(), Date.now(), isRunning));
  for (const { name } of abandoned) rmSync(join(folder, name), { force: true });
}

/** Removes all shards, but not those that are being written. @returns their bytes. */
export function clearShards(folder = shardFolder()): number {
  dropAbandoned(folder);
  const entries = entriesOf(folder);
  for (const { name } of entries) rmSync(join(folder, name), { force: true });
  return entries.reduce((sum, { bytes }) => sum + bytes, 0);
}
