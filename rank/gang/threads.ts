/** Number of threads of a rank. */
import { cpuQuota } from '../../protocol/cgroups.ts';
import { unexpected } from '../../protocol/errors.ts';
import { native } from '../native.ts';

export const maxNumThreads = 1024;

/**
 * Default threads of a rank: the first entry of `OMP_NUM_THREADS`, which may list one per nesting level, else
 * `allowedCores`.
 * @throws NdsError `ERR_USAGE` when that entry is not an integer in `[1, maxNumThreads]`.
 */
export function defaultNumThreads(ompNumThreads: string | undefined, allowedCores: number): number {
  if (ompNumThreads === undefined || ompNumThreads === '') return allowedCores;
  const first = ompNumThreads.split(',')[0]?.trim() ?? '';
  const value = Number(first);
  if (!/^\d+$/.test(first) || value < 1 || value > maxNumThreads) {
    throw unexpected('ERR_USAGE', `an integer from 1 to ${maxNumThreads}`, 'OMP_NUM_THREADS', ompNumThreads);
  }
  return value;
}

/** Threads of this process's rank: as asked for, else the default. @throws NdsError as `defaultNumThreads`. */
export function ownNumThreads(numThreads: number | null | undefined): number {
  const cores = Math.min(native().cpuInfo().allowedCores, cpuQuota());
  return numThreads ?? defaultNumThreads(process.env['OMP_NUM_THREADS'], cores);
}
