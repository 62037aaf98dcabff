/**
 * Whether a load fits, and its number of KV blocks, equal on all ranks: from the options and from what every rank
 * measured. Pure.
 */
import type { MemoryReport } from '../protocol/messages.ts';
import { type KvBudget, type KvGroup, resolveNumBlocks } from './kv/budget.ts';
import { type Alternative, checkLoadMemory, type RankNeeds } from './kv/load-memory.ts';
import { deviceBudgets, deviceMemory, hostBudgets, hostMemory } from './kv/rank-memory.ts';
import type { LLMOptions, SizedOptions } from './options.ts';

/** What a load takes of memory: on the CPU as `host` says, on CUDA as `cuda` does. */
export type LoadSize = {
  /** KV groups that share the KV memory. */
  readonly groups: readonly KvGroup[];
} & ({ readonly host: HostFacts; readonly cuda: null } | { readonly host: null; readonly cuda: CudaFacts });

/** A load, and the memory that it has to fit. */
export type KvFacts = LoadSize & {
  /** `[worldSize]` what each rank measured for this load. */
  readonly memory: readonly MemoryReport[];
  /** Other ways to load the model. */
  readonly alternatives: () => readonly Alternative[];
};

/** What a load takes of a host's memory besides KV. */
export interface HostFacts {
  /** `[worldSize]` bytes of the weights that are held, and of the buffers of the largest step. */
  readonly weightBytes: readonly number[];
  readonly stepBytes: readonly number[];
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

/**
 * @throws NdsError `ERR_SYSTEM` naming the host whose memory is too small for weights, a step and one block; on CUDA,
 * where an option bounds it, `ERR_USAGE`. `ERR_USAGE` naming the rank that has no block, or less than was asked for.
 */
export function resolveKvBlocks(options: LLMOptions, sized: SizedOptions, facts: KvFacts): number {
  const { memory, groups, cuda } = facts;
  const { maxModelLen, maxNumSeqs, blockSize, enablePrefixCaching } = sized;
  const { gpuMemoryUtilization: utilization = 0.9 } = options;
  const needs = rankNeeds(facts, sized);
  const budgets = cuda === null ? hostBudgets(memory) : deviceBudgets(memory, utilization);
  checkLoadMemory(budgets, needs, facts.alternatives, cuda === null ? 'ERR_SYSTEM' : 'ERR_USAGE');
  // As many as running sequences can fill; more only if memory was requested and prefix caching can use it.
  const asked = [options.kvCacheMemoryBytes, options.kvCacheMemoryShare, cuda === null ? undefined : options.gpuMemoryUtilization];
  const asksForMemory = asked.some((budget) => budget !== undefined);
  const mostBlocks = asksForMemory && enablePrefixCaching ? maxNumBlocks : Math.ceil(maxModelLen / blockSize) * maxNumSeqs;
  const besideKv = needs.map(({ weights, step }) => weights + step);
  if (cuda === null) return resolveNumBlocks(options, hostMemory(memory, besideKv), groups, mostBlocks);
  return resolveNumBlocks(cudaBudget(options), deviceMemory(memory, besideKv, utilization), groups, mostBlocks);
}

/** The caller's budget, in bytes or as a share; without one, all that is left. */
function cudaBudget({ kvCacheMemoryBytes, kvCacheMemoryShare = 1 }: LLMOptions): KvBudget {
  return kvCacheMemoryBytes === undefined ? { kvCacheMemoryShare } : { kvCacheMemoryBytes };
}

/** `[worldSize]` what each rank needs to run at all. */
export function rankNeeds({ groups, host, cuda }: LoadSize, sized: SizedOptions): RankNeeds[] {
  const { weightBytes } = cuda ?? host;
  return weightBytes.map((weights, rank) => ({
    weights,
    step: cuda === null ? (host.stepBytes[rank] as number) : cudaStepBytes(cuda, sized),
    kv: groups.reduce((sum, { bytesPerBlock }) => sum + (bytesPerBlock[rank] as number), 0),
  }));
}

/** Activations, logits, and what kernels, graphs and libraries reserve. */
function cudaStepBytes({ logitsPerRow, activationBytesPerToken, isEmulated }: CudaFacts, sized: SizedOptions): number {
  const stepBytes = sized.maxNumBatchedTokens * activationBytesPerToken + sized.maxNumLogitRows * logitsPerRow * 4 * 4;
  return stepBytes + (isEmulated ? 0 : cudaReserveBytes);
}
