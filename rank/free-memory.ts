/** Memory available to new allocations: the system's, capped by this process's cgroup. */
import { readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';

/** In bytes. `os.freemem()` is MemAvailable on Linux: reclaimable caches count as free. */
export function freeMemoryBytes(): number {
  const limit = process.constrainedMemory();
  if (!(limit > 0 && limit < totalmem())) return freemem();
  return Math.max(0, Math.min(freemem(), limit - cgroupUsedBytes('/proc/self/cgroup', '/sys/fs/cgroup')));
}

/**
 * Bytes that the cgroup uses, less file caches, or a model read before would count as used; 0 if unknown. `listPath`
 * lists the cgroups of this process, mounted under `root`.
 */
export function cgroupUsedBytes(listPath: string, root: string): number {
  const lines = (read(listPath) ?? '').split('\n');
  for (const [pattern, folder, usageFile, cacheKeys] of versions) {
    const path = lines.map((line) => pattern.exec(line)?.[1]).find((match) => match !== undefined);
    if (path === undefined) continue;
    // In a container the path may be the host's, with this cgroup mounted as the root.
    for (const place of [join(root, folder, path), join(root, folder)]) {
      const usage = Number(read(join(place, usageFile))?.trim() ?? Number.NaN);
      const stat = read(join(place, 'memory.stat'));
      if (!Number.isSafeInteger(usage) || stat === undefined) continue;
      const cache = cacheKeys.reduce((sum, key) => sum + Number(new RegExp(`^${key} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0), 0);
      return Math.max(0, usage - cache);
    }
  }
  return 0;
}

/** cgroup v1 if it controls memory, else v2: line in the list, hierarchy, usage file, cache keys in memory.stat. */
const versions = [
  [/^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/, 'memory', 'memory.usage_in_bytes', ['total_active_file', 'total_inactive_file']],
  [/^0::(.*)$/, '', 'memory.current', ['active_file', 'inactive_file']],
] as const;

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
