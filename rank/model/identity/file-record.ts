/** What is kept of a hashed file, and when it still holds. Pure. */
import { isObject, jsonOrNull } from '../../../protocol/checks.ts';

/** A file as the file system describes it: other content has another fingerprint, unless it is younger than its clock's tick. */
export interface Fingerprint {
  /** In bytes. */
  readonly size: bigint;
  /** Nanoseconds since 1970; a write sets both, and only the first can be set back. */
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly ino: bigint;
}

/** Digests of the tensors of a file. */
export interface FileRecord {
  readonly path: string;
  readonly fingerprint: Fingerprint;
  /** When it had the fingerprint, before it was read; milliseconds since 1970. */
  readonly readAtMs: number;
  /** In hexadecimal, by tensor. */
  readonly digests: ReadonlyMap<string, string>;
}

/** Increment when digests are made in another way. */
const version = 1;
/** The coarsest tick of a file's times, FAT's: a file may change twice within it and keep its fingerprint. */
const tickMs = 2000;

export function isSame(a: Fingerprint, b: Fingerprint): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs && a.ino === b.ino;
}

/** Whether a file was older than a tick at `atMs`: a change since then shows in its fingerprint. */
export function isSettled({ mtimeNs, ctimeNs }: Fingerprint, atMs: number): boolean {
  const changedNs = mtimeNs > ctimeNs ? mtimeNs : ctimeNs;
  return Number(changedNs / 1_000_000n) + tickMs < atMs;
}

/** Whether a record is of the file that is there now. */
export function holds(record: FileRecord, path: string, now: Fingerprint): boolean {
  return record.path === path && isSame(record.fingerprint, now) && isSettled(record.fingerprint, record.readAtMs);
}

export function formatRecord({ path, fingerprint, readAtMs, digests }: FileRecord): string {
  const numbers = Object.fromEntries(Object.entries(fingerprint).map(([key, value]) => [key, String(value)]));
  return `${JSON.stringify({ version, path, ...numbers, readAtMs, digests: Object.fromEntries(digests) })}\n`;
}

/** A record from the text of its file; null for another version, or for what is none. */
export function parseRecord(text: string): FileRecord | null {
  const value = jsonOrNull(text);
  if (!isObject(value) || value['version'] !== version) return null;
  const { path, size, mtimeNs, ctimeNs, ino, readAtMs, digests } = value;
  const areNumbers = [size, mtimeNs, ctimeNs, ino].every((number) => typeof number === 'string' && /^-?\d+$/.test(number));
  if (!areNumbers || typeof path !== 'string' || typeof readAtMs !== 'number' || !isObject(digests)) return null;
  const entries = Object.entries(digests);
  if (!entries.every(([, digest]) => typeof digest === 'string' && /^[0-9a-f]{64}$/.test(digest))) return null;
  const [sizeOf, mtime, ctime, inode] = [size, mtimeNs, ctimeNs, ino].map((number) => BigInt(number as string)) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  const fingerprint = { size: sizeOf, mtimeNs: mtime, ctimeNs: ctime, ino: inode };
  return { path, fingerprint, readAtMs, digests: new Map(entries as [string, string][]) };
}
