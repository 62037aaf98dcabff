/** Memory available to new allocations: the system's, capped by the cgroups of this process. */
import { freemem } from 'node:os';
import { join } from 'node:path';
import { cgroupsOf, ownCgroups, readText } from '../protocol/cgroups.ts';

/** In bytes. `os.freemem()` is MemAvailable on Linux: reclaimable caches count as free. */
export function freeMemoryBytes(): number {
  return Math.min(freemem(), cgroupFreeBytes());
}

/**
 * Bytes that the cgroup of this process and all above it leave free; infinite without a limit. `listPath` lists the
 * cgroups of this process, mounted under `root`.
 */
export function cgroupFreeBytes(listPath?: string, root?: string): number {
  const free = placesOf(listPath, root).map(({ limit, used }) => Math.max(0, limit - used));
  return Math.min(Number.POSITIVE_INFINITY, ...free);
}

/** The lowest limit of the cgroup of this process and all above it, in bytes; infinite without one. */
export function cgroupLimitBytes(listPath?: string, root?: string): number {
  return Math.min(Number.POSITIVE_INFINITY, ...placesOf(listPath, root).map(({ limit }) => limit));
}

/** Bytes that the cgroup uses, less file caches, or a model read before would count as used; 0 if unknown. */
export function cgroupUsedBytes(listPath: string, root: string): number {
  return placesOf(listPath, root)[0]?.used ?? 0;
}

/** A cgroup: its limit, infinite where there is none, and what it uses beside file caches. */
interface Place {
  readonly limit: number;
  readonly used: number;
}

/** The cgroup of this process and those above it, innermost first: of v1 if it controls memory, else of v2. */
function placesOf(listPath = ownCgroups.listPath, root = ownCgroups.root): Place[] {
  for (const { version, folders } of cgroupsOf('memory', { listPath, root })) {
    const found = folders.flatMap((folder) => readPlace(folder, files[version]) ?? []);
    if (found.length > 0) return found;
  }
  return [];
}

const files = {
  1: { usage: 'memory.usage_in_bytes', limit: 'memory.limit_in_bytes', cacheKeys: ['total_active_file', 'total_inactive_file'] },
  2: { usage: 'memory.current', limit: 'memory.max', cacheKeys: ['active_file', 'inactive_file'] },
} as const;

function readPlace(folder: string, { usage, limit, cacheKeys }: (typeof files)[1 | 2]): Place | undefined {
  const used = numberIn(join(folder, usage));
  const stat = readText(join(folder, 'memory.stat'));
  if (used === undefined || stat === undefined) return undefined;
  const cache = cacheKeys.reduce((sum, key) => sum + Number(new RegExp(`^${key} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0), 0);
  return { limit: numberIn(join(folder, limit)) ?? Number.POSITIVE_INFINITY, used: Math.max(0, used - cache) };
}

/** The number of a file; undefined for one that is absent, or says `max`. */
function numberIn(path: string): number | undefined {
  const value = Number(readText(path)?.trim() || Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}
