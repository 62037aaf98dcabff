/** Memory available to new allocations: the system's, capped by the cgroups of this process. */
import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { dirname, join } from 'node:path';

/** In bytes. `os.freemem()` is MemAvailable on Linux: reclaimable caches count as free. */
export function freeMemoryBytes(): number {
  return Math.min(freemem(), cgroupFreeBytes('/proc/self/cgroup', '/sys/fs/cgroup'));
}

/**
 * Bytes that the cgroup of this process and all above it leave free; infinite without a limit. `listPath` lists the
 * cgroups of this process, mounted under `root`.
 */
export function cgroupFreeBytes(listPath: string, root: string): number {
  const free = placesOf(listPath, root).map(({ limit, used }) => Math.max(0, limit - used));
  return Math.min(Number.POSITIVE_INFINITY, ...free);
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

/** The cgroup of this process and those above it, innermost first. */
function placesOf(listPath: string, root: string): Place[] {
  const lines = (read(listPath) ?? '').split('\n');
  for (const version of versions) {
    const path = lines.map((line) => version.pattern.exec(line)?.[1]).find((match) => match !== undefined);
    if (path === undefined) continue;
    const top = join(root, version.folder);
    // In a container the path may be the host's, with this cgroup mounted as the top.
    const found = foldersFrom(join(top, path).replace(/\/$/, ''), top).flatMap((folder) => readPlace(folder, version) ?? []);
    if (found.length > 0) return found;
  }
  return [];
}

function foldersFrom(folder: string, top: string): string[] {
  return folder === top || !folder.startsWith(top) ? [top] : [folder, ...foldersFrom(dirname(folder), top)];
}

/** cgroup v1 if it controls memory, else v2. */
const versions = [
  {
    pattern: /^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/,
    folder: 'memory',
    usageFile: 'memory.usage_in_bytes',
    limitFile: 'memory.limit_in_bytes',
    cacheKeys: ['total_active_file', 'total_inactive_file'],
  },
  {
    pattern: /^0::(.*)$/,
    folder: '',
    usageFile: 'memory.current',
    limitFile: 'memory.max',
    cacheKeys: ['active_file', 'inactive_file'],
  },
] as const;

function readPlace(folder: string, { usageFile, limitFile, cacheKeys }: (typeof versions)[number]): Place | undefined {
  const usage = numberIn(join(folder, usageFile));
  const stat = read(join(folder, 'memory.stat'));
  if (usage === undefined || stat === undefined) return undefined;
  const cache = cacheKeys.reduce((sum, key) => sum + Number(new RegExp(`^${key} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0), 0);
  return { limit: numberIn(join(folder, limitFile)) ?? Number.POSITIVE_INFINITY, used: Math.max(0, usage - cache) };
}

/** The number of a file; undefined for one that is absent, or says `max`. */
function numberIn(path: string): number | undefined {
  const value = Number(read(path)?.trim() || Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
