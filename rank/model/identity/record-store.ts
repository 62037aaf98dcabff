/** Records of hashed files in the user's cache. */
import { createHash, randomUUID } from 'node:crypto';
import { accessSync, constants, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, withLock } from '../../native.ts';
import { type FileRecord, formatRecord, parseRecord } from './file-record.ts';

/** Records that are kept, those used last: each is some kB. */
const maxRecords = 1000;

export const recordFolder = () => join(cacheFolder(), 'hashes');

export function recordPath(path: string): string {
  return join(recordFolder(), `${createHash('sha256').update(path).digest('hex')}.json`);
}

/** The record of a file; null without one. */
export function readRecord(path: string): FileRecord | null {
  try {
    return parseRecord(readFileSync(recordPath(path), 'utf8'));
  } catch {
    return null;
  }
}

/** Removes all records. */
export function clearRecords(): void {
  rmSync(recordFolder(), { recursive: true, force: true });
}

/** Runs `work` while no other process does so for this file; at once where the cache cannot be written. */
export async function inTurn<T>(path: string, work: () => Promise<T>): Promise<T> {
  return isWritable() ? withLock(`${recordPath(path)}.lock`, work) : work();
}

/** Keeps a record. A cache that cannot be written costs the next load another hash. */
export function keepRecord(record: FileRecord): void {
  if (!isWritable()) return;
  const path = recordPath(record.path);
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    writeFileSync(temporary, formatRecord(record));
    renameSync(temporary, path);
    dropOldest();
  } catch {
    rmSync(temporary, { force: true });
  }
}

function isWritable(): boolean {
  try {
    mkdirSync(recordFolder(), { recursive: true });
    accessSync(recordFolder(), constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function dropOldest(): void {
  const folder = recordFolder();
  const names = readdirSync(folder);
  if (names.length <= maxRecords) return;
  const times = names.map((name) => ({ name, ms: statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0 }));
  times.sort((a, b) => b.ms - a.ms);
  for (const { name } of times.slice(maxRecords)) rmSync(join(folder, name), { force: true });
}
