/** Threads of a rank: their number, the processors that they are pinned to, and how they wait for each other. */
import { unexpected } from '../../protocol/errors.ts';
import { numUsableCores, type Processors, readProcessors } from '../../protocol/processors.ts';

export const maxNumThreads = 1024;

/**
 * Default threads of a rank: the first entry of `OMP_NUM_THREADS`, which may list one per nesting level, else
 * `numCores`.
 * @throws NdsError `ERR_USAGE` when that entry is not an integer in `[1, maxNumThreads]`.
 */
export function defaultNumThreads(ompNumThreads: string | undefined, numCores: number): number {
  if (ompNumThreads === undefined || ompNumThreads === '') return numCores;
  const first = ompNumThreads.split(',')[0]?.trim() ?? '';
  const value = Number(first);
  if (!/^\d+$/.test(first) || value < 1 || value > maxNumThreads) {
    throw unexpected('ERR_USAGE', `an integer from 1 to ${maxNumThreads}`, 'OMP_NUM_THREADS', ompNumThreads);
  }
  return value;
}

/** Threads of this process's rank: as asked for, else the default. @throws NdsError as `defaultNumThreads`. */
export function ownNumThreads(numThreads: number | null | undefined): number {
  return numThreads ?? defaultNumThreads(process.env['OMP_NUM_THREADS'], numUsableCores(readProcessors()));
}

/** A rank among those of its host, which all have so many threads. */
export interface ThreadShare {
  readonly localRank: number;
  readonly localWorldSize: number;
  readonly numThreads: number;
}

/** Where the threads of a rank run. */
export interface ThreadPlacement {
  /** `[numThreads]` logical processor of each; empty where the system places them. */
  readonly processors: readonly number[];
  /** Whether the ranks' threads outnumber what can run at once: who waits then sleeps soon, for the awaited to run. */
  readonly isCrowded: boolean;
}

/**
 * Pins threads only where those of all ranks fill the cores, or all of their SMT siblings, exactly, and no quota is
 * below: a pinned thread cannot leave a processor that others use, and a quota says that others use them.
 */
export function placeThreads({ cores, quota }: Processors, { localRank, localWorldSize, numThreads }: ThreadShare): ThreadPlacement {
  const [total, all] = [numThreads * localWorldSize, cores.flat()];
  const places = total === all.length ? all : cores.flatMap(([first = 0]) => first);
  const isPinned = total === places.length && total <= quota;
  return {
    processors: isPinned ? places.slice(localRank * numThreads, (localRank + 1) * numThreads) : [],
    isCrowded: total > Math.min(all.length, quota),
  };
}
