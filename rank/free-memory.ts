/** How much memory new allocations could get: what the system calls available, inside this process's cgroup. */
import { readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';

/** Bytes. `os.freemem()` is MemAvailable on Linux: caches that the system would give up count as free. */
export function freeMemoryBytes(): number {
  const limit = process.constrainedMemory();
  if (!(limit > 0 && limit < totalmem())) return freemem();
  return Math.max(0, Math.min(freemem(), limit - cgroupUsedBytes('/proc/self/cgroup', '/sys/fs/cgroup')));
}

/**
 * What the cgroup holds and cannot give up: file caches are left out, or a model that was read before would count as used.
 * 0 where the system does not say. `listPath` lists the cgroups of this process, which lie under `root`.
 */
export function cgroupUsedBytes(listPath: string, root: string): number {
  const lines = (read(listPath) ?? '').split('\n');
  for (const [pattern, folder, usageFile, cacheKeys] of versions) {
    const path = lines.map((line) => pattern.exec(line)?.[1]).find((match) => match !== undefined);
    if (path === undefined) continue;
    // In a container the path may be that of the host, and the mount shows this cgroup as its root.
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

/** Line in the list, folder of the hierarchy, file of the usage, caches in memory.stat: cgroup v1 where memory is under it, else v2. */
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
