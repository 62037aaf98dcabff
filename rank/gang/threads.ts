/** Threads of a rank. */
import { unexpected } from '../../protocol/errors.ts';

export const maxNumThreads = 1024;

/**
 * Threads of a rank that was told no number.
 * @throws NdsError `ERR_USAGE` when `OMP_NUM_THREADS` is no number. It may be a list, one entry a nesting level: the first counts.
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
