/** How many KV blocks fit a memory budget, on every rank and for all KV groups together. Pure arithmetic. */
import { NdsError } from '../../protocol/errors.ts';

/** Layers that share a block table: the target's, or a draft's. */
export interface KvGroup {
  readonly name: string;
  /** `[worldSize]` bytes of one block on each rank. */
  readonly bytesPerBlock: readonly number[];
}

/** The caller's budget. At most one is given; default `defaultKvCacheMemoryShare`. */
export interface KvBudget {
  /** Bytes on each rank. */
  readonly kvCacheMemoryBytes?: number | undefined;
  /** Share of the host's free memory, divided by its ranks; in (0, 1]. */
  readonly kvCacheMemoryShare?: number | undefined;
}

/** Measured once, before loading. */
export interface HostMemory {
  readonly freeMemoryBytes: number;
  /** Ranks that share it. */
  readonly localWorldSize: number;
  /** Source of the figure, for errors, when it is not the host's. */
  readonly origin?: string;
}

export const defaultKvCacheMemoryShare = 0.25;

/**
 * Blocks per group and rank. All groups get the same number, so that all cover the same tokens; the rank with the
 * largest blocks decides. At most `mostBlocks`: more could never be used.
 * @throws NdsError `ERR_USAGE` when not even one block of each group fits, or more is requested than the host has free,
 * naming what was requested and what would fit.
 */
export function resolveNumBlocks(budget: KvBudget, memory: HostMemory, groups: readonly KvGroup[], mostBlocks: number): number {
  const worldSize = groups[0]?.bytesPerBlock.length ?? 0;
  if (worldSize === 0 || groups.some(({ bytesPerBlock }) => bytesPerBlock.length !== worldSize)) {
    const sizes = groups.map(({ name, bytesPerBlock }) => `${bytesPerBlock.length} for ${name}`).join(', ');
    throw new NdsError('ERR_INTERNAL', `Expected block sizes of every rank for every KV group but received ${sizes || 'none'}`);
  }
  const perRank = Array.from({ length: worldSize }, (_, rank) =>
    groups.reduce((sum, { bytesPerBlock }) => sum + (bytesPerBlock[rank] as number), 0),
  );
  const largest = Math.max(...perRank);
  const share = budget.kvCacheMemoryShare ?? defaultKvCacheMemoryShare;
  const bytes = budget.kvCacheMemoryBytes ?? Math.floor((memory.freeMemoryBytes * share) / memory.localWorldSize);
  const numBlocks = Math.min(mostBlocks, Math.floor(bytes / largest));
  const { freeMemoryBytes: free, localWorldSize: numRanks } = memory;
  if (budget.kvCacheMemoryBytes !== undefined && numBlocks * largest * numRanks > free) {
    const most = `at most ${Math.floor(free / numRanks)} bytes, what each of ${numRanks} ranks can have of ${free} free ones,`;
    throw new NdsError('ERR_USAGE', `Expected ${most} for kvCacheMemoryBytes but received ${bytes}`);
  }
  if (numBlocks >= 1) return numBlocks;
  const least = groups.length === 1 ? `${largest} bytes, one block,` : `${largest} bytes, one block of ${describeGroups(groups)},`;
  if (budget.kvCacheMemoryBytes !== undefined) {
    throw new NdsError('ERR_USAGE', `Expected at least ${least} for kvCacheMemoryBytes but received ${bytes}`);
  }
  const { freeMemoryBytes, localWorldSize, origin } = memory;
  if (origin !== undefined)
    throw new NdsError('ERR_USAGE', `Expected at least ${least} of each rank for KV but received ${bytes}: ${origin}`);
  const part = `${share} of ${freeMemoryBytes} free bytes for ${localWorldSize} ${localWorldSize === 1 ? 'rank' : 'ranks'}`;
  throw new NdsError('ERR_USAGE', `Expected at least ${least} of each rank for kvCacheMemoryShare but received ${bytes}: ${part}`);
}

function describeGroups(groups: readonly KvGroup[]): string {
  return groups.map(({ name }) => name).join(' and ');
}
