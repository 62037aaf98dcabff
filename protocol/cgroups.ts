/** The cgroups of this process, v1 and v2: where a controller keeps its files, at every level. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The kernel's list of this process's cgroups, and the folder that they are mounted under. */
export interface CgroupSource {
  readonly listPath: string;
  readonly root: string;
}

/** This process's. */
export const ownCgroups: CgroupSource = { listPath: '/proc/self/cgroup', root: '/sys/fs/cgroup' };

/** A hierarchy of cgroups that may control something. */
export interface Cgroups {
  readonly version: 1 | 2;
  /** Folder of this process's cgroup and of those above it, innermost first. */
  readonly folders: readonly string[];
}

/** The hierarchies that may hold `controller`: v1's where it is mounted there, then v2's. */
export function cgroupsOf(controller: string, source: CgroupSource = ownCgroups): Cgroups[] {
  const lines = [...(readText(source.listPath) ?? '').matchAll(/^\d+:([^:\n]*):(.*)$/gm)];
  const found = lines.flatMap(([, controllers = '', path = '']): Cgroups[] => {
    if (controllers === '') return [{ version: 2, folders: foldersOf(path, unifiedRoot(source.root)) }];
    if (!controllers.split(',').includes(controller)) return [];
    const tops = [controller, controllers].map((name) => join(source.root, name));
    return [{ version: 1, folders: foldersOf(path, tops.find((top) => existsSync(top)) ?? join(source.root, controller)) }];
  });
  return found.sort((a, b) => a.version - b.version);
}

/**
 * Processors' worth of time that the quotas of `cpu.max`, or `cpu.cfs_quota_us` in v1, leave this process: the tightest
 * of all levels, a fraction perhaps; infinite without a quota. A `cpuset` is no part of it: it is in the affinity mask.
 */
export function cpuQuota(source?: CgroupSource): number {
  const quotas = cgroupsOf('cpu', source).flatMap(({ version, folders }) =>
    folders.map((folder) => {
      const text =
        version === 2 ? readText(join(folder, 'cpu.max')) : [quotaFile, periodFile].map((file) => readText(join(folder, file))).join(' ');
      return parseQuota(text ?? '');
    }),
  );
  return Math.min(Number.POSITIVE_INFINITY, ...quotas);
}

const quotaFile = 'cpu.cfs_quota_us';
const periodFile = 'cpu.cfs_period_us';

/** Processors of `<quota> <period>`; infinite where the quota is `max`, -1 or absent. */
function parseQuota(text: string): number {
  const [quota = Number.NaN, period = Number.NaN] = text.trim().split(/\s+/).map(Number);
  return quota > 0 && period > 0 ? quota / period : Number.POSITIVE_INFINITY;
}

/** Text of a file; undefined for one that is absent or unreadable. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Beside v1's hierarchies, v2's has a folder of its own. */
function unifiedRoot(root: string): string {
  const unified = join(root, 'unified');
  return existsSync(join(unified, 'cgroup.procs')) ? unified : root;
}

/**
 * Folders from the cgroup at `path` up to `top`. In a container the path may be the host's, while what is mounted at
 * `top` is an inner part of it: the longest end of the path that exists there counts.
 */
function foldersOf(path: string, top: string): string[] {
  const names = path.split('/').filter((name) => name !== '');
  const skipped = names.findIndex((_, index) => existsSync(join(top, ...names.slice(index))));
  const folders = [skipped === -1 ? top : join(top, ...names.slice(skipped))];
  while (folders.at(-1) !== top) folders.push(dirname(folders.at(-1) as string));
  return folders;
}
