/** The file that keeps one program's packed matrices: found before a load, kept after it. */
import { randomUUID } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename } from 'node:path';
import { cpuPackedBytes, isUnchanged, knownIdentity, learnIdentity, type ModelIdentity } from '../model/index.ts';
import { native } from '../native.ts';
import type { PackedFileSpec, ProgramSpec } from '../program-spec.ts';
import { formatLabel } from './entry-header.ts';
import { temporaryName } from './eviction.ts';
import { minAutoBytes, readShardCacheSettings } from './settings.ts';
import { formatsOf, hasQuantized, shardKey } from './shard-key.ts';
import { entryPath, keepFile, makeRoom, touch } from './store.ts';

/** A program, and whose share of which model it is. */
export interface Shard {
  /** Folder of the model. */
  readonly folder: string;
  readonly program: ProgramSpec;
  readonly rank: number;
  readonly worldSize: number;
  /** Shards of its size that this host loads, and whether this rank writes it: one writes what all ranks hold whole. */
  readonly numOfHost: number;
  readonly isWriter: boolean;
}

/** An open shard file. */
export interface ShardFile {
  readonly spec: PackedFileSpec;
  readonly entry: string;
  /** The model of which it is, as it was found. */
  readonly identity: ModelIdentity;
}

/** Files that are being made durable. */
const saves = new Set<Promise<void>>();

/** Settles when what was written is kept. */
export async function savesEnded(): Promise<void> {
  await Promise.all(saves);
}

const toldNotices = new Set<string>();

/** Writes a line to standard error, once in this process. */
export function notice(message: string): void {
  const isNew = !toldNotices.has(message);
  toldNotices.add(message);
  if (isNew) process.stderr.write(`nano-dist-spec: shard cache: ${message.trim()}\n`);
}

/** Whether a shard is kept in the cache. @throws NdsError `ERR_USAGE` for a bad setting. */
export function isCached({ program, numOfHost }: Shard): boolean {
  const { mode, maxBytes } = readShardCacheSettings();
  if (mode === 'off' || (mode === 'auto' && !hasQuantized(program))) return false;
  const bytes = cpuPackedBytes(program);
  if (mode === 'auto' && bytes < minAutoBytes) return false;
  if (bytes * numOfHost <= maxBytes) return true;
  notice(`NDS_SHARD_CACHE_SIZE is ${maxBytes} bytes, fewer than the ${bytes * numOfHost} of this load`);
  return false;
}

/** Makes the hashes known of the models of cached shards. Before other ranks look for theirs. */
export async function learnModels(shards: readonly Shard[]): Promise<void> {
  for (const { folder } of shards) await learnIdentity(folder);
}

/** The file of a cached shard; null for a model whose hash is not known. */
export async function findShardFile(shard: Shard): Promise<ShardFile | null> {
  const { folder, program, rank, worldSize, isWriter } = shard;
  const identity = await knownIdentity(folder);
  if (identity === null) return null;
  const key = shardKey({ modelHash: identity.hash, rank, worldSize, layout: native().packedLayout }, program);
  const label = formatLabel({ model: folder, rank, worldSize, formats: formatsOf(program) });
  const entry = entryPath(key);
  const readPath = existsSync(entry) ? entry : '';
  return { spec: { readPath, writePath: isWriter ? writePath(entry, program) : '', key, label }, entry, identity };
}

/** A new file beside the entry; empty, with a notice, where there can be none. */
function writePath(entry: string, program: ProgramSpec): string {
  const writer = { host: hostname(), pid: process.pid };
  try {
    makeRoom(cpuPackedBytes(program));
  } catch (error) {
    if (!existsSync(entry)) notice(`shards are not kept: ${(error as Error).message}`);
    return '';
  }
  return `${entry.slice(0, -basename(entry).length)}${temporaryName(basename(entry), writer, randomUUID())}`;
}

/** Keeps what a load has written, unless the model changed meanwhile; notes what it has read. */
export function keepShardFile({ spec, entry, identity }: ShardFile): void {
  if (spec.writePath === '' || !existsSync(spec.writePath)) return touch(entry);
  if (!isUnchanged(identity)) {
    rmSync(spec.writePath, { force: true });
    return notice('a model changed while it was loaded: its shard is not kept');
  }
  const save = keepFile(spec.writePath, entry, readShardCacheSettings().maxBytes).catch((error: Error) => {
    rmSync(spec.writePath, { force: true });
    notice(`a shard is not kept: ${error.message}`);
  });
  saves.add(save);
  void save.then(() => saves.delete(save));
}

/** After a load that failed. */
export function dropShardFile({ spec }: ShardFile): void {
  if (spec.writePath !== '') rmSync(spec.writePath, { force: true });
}
