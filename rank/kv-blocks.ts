/** The number of KV blocks of a load, equal on all ranks, from the options and from what every rank measured. Pure. */
import type { MemoryReport } from '../protocol/messages.ts';
import { type KvBudget, type KvGroup, type RankMemory, resolveNumBlocks } from './kv/budget.ts';
import { deviceMemory, hostMemory } from './kv/rank-memory.ts';
import type { LLMOptions, SizedOptions } from './options.ts';

/** What the KV cache must share memory with, and what its blocks take. */
export interface KvFacts {
  /** `[worldSize]` what each rank measured for this load. */
  readonly memory: readonly MemoryReport[];
  /** KV groups that share the KV memory. */
  readonly groups: readonly KvGroup[];
  /** On CUDA; null on the CPU. */
  readonly cuda: CudaFacts | null;
}

/** What a load takes of a device's memory besides KV. */
export interface CudaFacts {
  /** `[worldSize]` weight bytes. */
  readonly weightBytes: readonly number[];
  /** Logits per row, of the draft model too. */
  readonly logitsPerRow: number;
  /** Activation bytes per token of a step, of the draft model too. */
  readonly activationBytesPerToken: number;
  readonly isEmulated: boolean;
}

/** Max KV blocks: ids have 32 bits, and each block takes some bytes of accounting. */
const maxNumBlocks = 2 ** 24;
/** Reserved for kernels, graphs and library workspaces. */
const cudaReserveBytes = 2 ** 29;

/** @throws NdsError `ERR_USAGE` naming the rank whose memory holds no block, or less than was asked for. */
export function resolveKvBlocks(options: LLMOptions, sized: SizedOptions, { memory, groups, cuda }: KvFacts): number {
  const { maxModelLen, maxNumSeqs, blockSize, enablePrefixCaching } = sized;
  // As many as running sequences can fill; more only if memory was requested and prefix caching can use it.
  const budgets = [options.kvCacheMemoryBytes, options.kvCacheMemoryShare, cuda === null ? undefined : options.gpuMemoryUtilization];
  const asksForMemory = budgets.some((budget) => budget !== undefined);
  const mostBlocks = asksForMemory && enablePrefixCaching ? maxNumBlocks : Math.ceil(maxModelLen / blockSize) * maxNumSeqs;
  if (cuda === null) return resolveNumBlocks(options, hostMemory(memory), groups, mostBlocks);
  return resolveNumBlocks(cudaBudget(options), cudaMemory(memory, cuda, options, sized), groups, mostBlocks);
}

/** The caller's budget, in bytes or as a share; without one, all that is left. */
function cudaBudget({ kvCacheMemoryBytes, kvCacheMemoryShare = 1 }: LLMOptions): KvBudget {
  return kvCacheMemoryBytes === undefined ? { kvCacheMemoryShare } : { kvCacheMemoryBytes };
}

function cudaMemory(
  memory: readonly MemoryReport[],
  { weightBytes, logitsPerRow, activationBytesPerToken, isEmulated }: CudaFacts,
  { gpuMemoryUtilization = 0.9 }: LLMOptions,
  { maxNumBatchedTokens, maxNumLogitRows }: SizedOptions,
): RankMemory[] {
  const stepBytes = maxNumBatchedTokens * activationBytesPerToken + maxNumLogitRows * logitsPerRow * 4 * 4;
  const reserve = isEmulated ? 0 : cudaReserveBytes;
  return deviceMemory(
    memory,
    weightBytes.map((bytes) => bytes + stepBytes + reserve),
    gpuMemoryUtilization,
  );
}
