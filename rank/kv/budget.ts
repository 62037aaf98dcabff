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
  /** Share of the memory that the host has left, divided by its ranks; in (0, 1]. */
  readonly kvCacheMemoryShare?: number | undefined;
}

/** Memory that one rank may use for KV together with the others that share it; measured before each load. */
export interface RankMemory {
  readonly freeMemoryBytes: number;
  /** Ranks that share it. */
  readonly localWorldSize: number;
  /** Source of the figure, for errors, when it is not the host's. */
  readonly origin?: string;
  /** What the host's figure is left of, for errors. */
  readonly left?: string;
}

export const defaultKvCacheMemoryShare = 0.25;

/**
 * Blocks per group and rank. All groups and ranks get the same number, so that all cover the same tokens; the rank that
 * has room for the fewest decides. At most `mostBlocks`: more could never be used.
 * @param memory - `[worldSize]`
 * @throws NdsError `ERR_USAGE` when on some rank not even one block of each group fits, or more is requested than it has
 * free, naming the rank, what was requested and what would fit.
 */
export function resolveNumBlocks(budget: KvBudget, memory: readonly RankMemory[], groups: readonly KvGroup[], mostBlocks: number): number {
  const blockBytes = bytesOfOneBlock(memory.length, groups);
  const share = budget.kvCacheMemoryShare ?? defaultKvCacheMemoryShare;
  const ranks = memory.map(({ freeMemoryBytes: free, localWorldSize: numRanks, origin, left }, rank) => {
    const bytes = budget.kvCacheMemoryBytes ?? Math.floor((free * share) / numRanks);
    const needed = blockBytes[rank] as number;
    return { rank, free, numRanks, origin, left, bytes, needed, room: bytes / needed };
  });
  const smallest = ranks.reduce((least, one) => (one.room < least.room ? one : least));
  const numBlocks = Math.min(mostBlocks, Math.floor(smallest.room));
  if (budget.kvCacheMemoryBytes !== undefined) {
    const short = ranks.find(({ free, numRanks, needed }) => numBlocks * needed * numRanks > free);
    if (short !== undefined) throw moreThanFree(short);
  }
  if (numBlocks >= 1) return numBlocks;
  const { rank, free, numRanks, origin, left, bytes, needed } = smallest;
  const least = groups.length === 1 ? `${needed} bytes, one block,` : `${needed} bytes, one block of ${describeGroups(groups)},`;
  if (budget.kvCacheMemoryBytes !== undefined) {
    throw new NdsError('ERR_USAGE', `Expected at least ${least} for kvCacheMemoryBytes but received ${bytes}`);
  }
  if (origin !== undefined)
    throw new NdsError('ERR_USAGE', `Expected at least ${least} for the KV of rank ${rank} but received ${bytes}: ${origin}`);
  const part = `${share} of ${free} free bytes for ${ranksInWords(numRanks)}${left === undefined ? '' : `, ${left}`}`;
  throw new NdsError('ERR_USAGE', `Expected at least ${least} of rank ${rank} for kvCacheMemoryShare but received ${bytes}: ${part}`);
}

/** `[worldSize]` bytes of one block of each group on each rank. */
function bytesOfOneBlock(worldSize: number, groups: readonly KvGroup[]): number[] {
  if (worldSize === 0 || groups.length === 0 || groups.some(({ bytesPerBlock }) => bytesPerBlock.length !== worldSize)) {
    const sizes = groups.map(({ name, bytesPerBlock }) => `${bytesPerBlock.length} for ${name}`).join(', ');
    throw new NdsError('ERR_INTERNAL', `Expected block sizes of ${worldSize} ranks for every KV group but received ${sizes || 'none'}`);
  }
  return Array.from({ length: worldSize }, (_, rank) =>
    groups.reduce((sum, { bytesPerBlock }) => sum + (bytesPerBlock[rank] as number), 0),
  );
}

interface ShortRank {
  readonly rank: number;
  readonly free: number;
  readonly numRanks: number;
  readonly origin: string | undefined;
  readonly left: string | undefined;
  readonly bytes: number;
}

function moreThanFree(rank: ShortRank): NdsError {
  const of = `what each of ${ranksInWords(rank.numRanks)} can have of ${rank.free} free ones on rank ${rank.rank},`;
  const source = rank.origin ?? rank.left;
  const origin = source === undefined ? '' : `: ${source}`;
  const expected = `Expected at most ${Math.floor(rank.free / rank.numRanks)} bytes, ${of} for kvCacheMemoryBytes`;
  return new NdsError('ERR_USAGE', `${expected} but received ${rank.bytes}${origin}`);
}

const ranksInWords = (count: number) => (count === 1 ? '1 rank' : `${count} ranks`);

function describeGroups(groups: readonly KvGroup[]): string {
  return groups.map(({ name }) => name).join(' and ');
}
