/** Options of `LLM.load`: checked on their own, then completed from the model and the machine. */
import { boolean, type Check, checked, checkFields, integerIn, isObject, numberWhere, oneOf, textFor } from '../protocol/checks.ts';
import { NdsError, unexpected } from '../protocol/errors.ts';
import type { KvCacheDtype } from '../protocol/messages.ts';
import { maxNumThreads } from './gang/threads.ts';
import { type HostMemory, type KvGroup, resolveNumBlocks } from './kv/budget.ts';
import type { SchedulerLimits } from './scheduler/limits.ts';
import {
  checkSpeculativeConfig,
  type ResolvedSpeculativeConfig,
  resolveSpeculativeConfig,
  type SpeculativeConfig,
} from './speculative/config.ts';

/** How to load a model. Every option is optional; an unknown one is refused. */
export interface LLMOptions {
  /** Type of activations. `auto` (default) = bfloat16 for a bfloat16 checkpoint on CUDA or a processor with the instructions, else float32. */
  readonly dtype?: 'auto' | 'float32' | 'bfloat16' | undefined;
  /** Type of the KV cache. `auto` (default) = that of activations; `int8` = half of bfloat16's memory, with a scale per token and KV head. */
  readonly kvCacheDtype?: 'auto' | 'int8' | undefined;
  /** Where to compute. `auto` (default) = `cuda` where this build and machine have a device, else `cpu`. */
  readonly device?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** On CUDA: sums in one order, so that tokens depend on nothing else in the batch, nor on ranks; slower. The CPU always has it. Default false. */
  readonly deterministic?: boolean | undefined;
  /** On CUDA: share of the device's memory to use, in (0, 1]; what weights and activations leave of it is KV cache. Default 0.9. */
  readonly gpuMemoryUtilization?: number | undefined;
  /** Tokens per KV block, a multiple of 32. Default 32. */
  readonly blockSize?: number | undefined;
  /** Bytes of KV cache on each rank; without prefix caching, at most what `maxNumSeqs` sequences of `maxModelLen` need. Not with `kvCacheMemoryShare`. */
  readonly kvCacheMemoryBytes?: number | undefined;
  /** The same as a share of the host's free memory, in (0, 1], divided by its ranks. Default 0.25, at most what sequences need. */
  readonly kvCacheMemoryShare?: number | undefined;
  /** Most tokens of a sequence, prompt and output. Default and upper bound: the model's `max_position_embeddings`. */
  readonly maxModelLen?: number | undefined;
  /** Most sequences of one step. Default 64, or `maxNumBatchedTokens` if that is less. */
  readonly maxNumSeqs?: number | undefined;
  /** Most tokens of one step, at least `maxNumSeqs`. Default 1024, or `maxNumSeqs` if that is more. */
  readonly maxNumBatchedTokens?: number | undefined;
  /** Whether blocks of the KV cache serve every prompt that begins alike. Default true. */
  readonly enablePrefixCaching?: boolean | undefined;
  /** `fcfs` (default) = first come, first served; `priority` = requests with lower `priority` first. */
  readonly schedulingPolicy?: 'fcfs' | 'priority' | undefined;
  /** Most prompt tokens of one sequence in a step while others want the room. Default: half of `maxNumBatchedTokens`. */
  readonly longPrefillTokenThreshold?: number | undefined;
  /**
   * Whether the model's generation_config.json says what sampling parameters are where a call leaves them out. `auto` (default)
   * = yes, for temperature, top_k, top_p, min_p, repetition_penalty and max_new_tokens; `none` = no.
   */
  readonly generationConfig?: 'auto' | 'none' | undefined;
  /** Threads of each rank. Default: `OMP_NUM_THREADS`, else the processor cores that the rank may use. */
  readonly numThreads?: number | undefined;
  /** Whether a step is built and sent while the one before it runs. Default true; the tokens are the same either way. */
  readonly asyncScheduling?: boolean | undefined;
  /** How tokens are drafted ahead of the model. Default: not at all. */
  readonly speculativeConfig?: SpeculativeConfig | undefined;
  /** File for a trace of all ranks in Chrome's format (chrome://tracing, Perfetto). Default: none, or what `ndsrun --trace` says. */
  readonly trace?: string | undefined;
  /** File for every plan and its result, for `ndsrun replay`. Default: none, or what `ndsrun --record` says. */
  readonly record?: string | undefined;
  /** Prints what becomes of KV blocks to standard error. Default: whether `NDS_KV_DEBUG` is 1. */
  readonly kvDebug?: boolean | undefined;
}

/** Options with nothing left open but the threads, which each rank settles for itself. */
export interface ResolvedOptions extends SchedulerLimits {
  readonly dtype: 'float32' | 'bfloat16';
  readonly kvCacheDtype: KvCacheDtype;
  readonly device: 'cpu' | 'cuda';
  readonly deterministic: boolean;
  readonly generationConfig: 'auto' | 'none';
  readonly numThreads: number | null;
  readonly asyncScheduling: boolean;
  readonly speculativeConfig: ResolvedSpeculativeConfig | null;
}

/** A CUDA device, measured before anything is loaded. */
export interface CudaFacts {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Ranks that share it. */
  readonly numRanks: number;
  /** Bytes of weights on the rank that holds most. */
  readonly weightBytes: number;
  readonly vocabSize: number;
  /** Bytes that a token of a step takes in activations. */
  readonly activationBytesPerToken: number;
  readonly isEmulated: boolean;
}

/** What options depend on. */
export interface LoadFacts extends HostMemory {
  readonly worldSize: number;
  readonly maxPositionEmbeddings: number;
  /** Type in which the checkpoint stores its weights. */
  readonly checkpointDtype: string;
  /** Instruction set in use. */
  readonly isa: string;
  /** The device of this rank; null where none can be used, with the reason. */
  readonly cuda: CudaFacts | null;
  readonly noCudaReason: string;
  /** What shares the KV memory. */
  readonly kvGroups: (
    dtype: KvCacheDtype,
    blockSize: number,
    draftTensorParallelSize: number,
    device: 'cpu' | 'cuda',
  ) => readonly KvGroup[];
}

/** Blocks have 32-bit numbers, and each takes some bytes of accounting. */
const maxNumBlocks = 2 ** 24;
/** Rows that the LM head takes in one step for `computeLogits`, where the sequences leave room. */
const maxNumLogitRows = 128;
/** KV slots of 32 tokens are what attention sums over at a time. */
const blockSizeUnit = 32;

const memoryShare = numberWhere('a number above 0 and up to 1', (value) => value > 0 && value <= 1);
const file = textFor('the path of a file');
const tokens = integerIn(1, 2 ** 20);

/** Of each option, what it must be. `device` and `speculativeConfig` have checks of their own. */
const checks: Readonly<Record<keyof Required<LLMOptions>, Check<unknown> | null>> = {
  dtype: oneOf('auto', 'float32', 'bfloat16'),
  kvCacheDtype: oneOf('auto', 'int8'),
  device: null,
  generationConfig: oneOf('auto', 'none'),
  schedulingPolicy: oneOf('fcfs', 'priority'),
  blockSize: integerIn(blockSizeUnit, 4096),
  kvCacheMemoryBytes: integerIn(1, Number.MAX_SAFE_INTEGER),
  kvCacheMemoryShare: memoryShare,
  gpuMemoryUtilization: memoryShare,
  maxModelLen: integerIn(1, 2 ** 31 - 1),
  maxNumSeqs: integerIn(1, 2 ** 16),
  maxNumBatchedTokens: tokens,
  longPrefillTokenThreshold: tokens,
  numThreads: integerIn(1, maxNumThreads),
  asyncScheduling: boolean,
  deterministic: boolean,
  enablePrefixCaching: boolean,
  kvDebug: boolean,
  trace: file,
  record: file,
  speculativeConfig: null,
};

const devices = oneOf('auto', 'cpu', 'cuda');

/**
 * Checks the options by themselves.
 * @throws NdsError `ERR_USAGE` naming the option that is unknown, of a wrong type or out of range; `ERR_UNSUPPORTED` for another device.
 */
export function checkOptions(options: unknown = {}): LLMOptions {
  if (!isObject(options)) throw unexpected('ERR_USAGE', 'an object of load options', null, options);
  checkFields(options, checks, { plural: 'load options' }, 'ERR_USAGE');
  const { device, speculativeConfig, kvCacheMemoryBytes, kvCacheMemoryShare, blockSize, maxNumSeqs, maxNumBatchedTokens } =
    options as LLMOptions;
  if (device !== undefined) checked(device, devices, 'device', typeof device === 'string' ? 'ERR_UNSUPPORTED' : 'ERR_USAGE');
  if (speculativeConfig !== undefined) checkSpeculativeConfig(speculativeConfig);
  if (kvCacheMemoryBytes !== undefined && kvCacheMemoryShare !== undefined) {
    const both = `both, ${kvCacheMemoryBytes} and ${kvCacheMemoryShare}`;
    throw new NdsError('ERR_USAGE', `Expected kvCacheMemoryBytes or kvCacheMemoryShare but received ${both}`);
  }
  if (blockSize !== undefined && blockSize % blockSizeUnit !== 0) throw refuse('blockSize', `a multiple of ${blockSizeUnit}`, blockSize);
  if (maxNumSeqs !== undefined && maxNumBatchedTokens !== undefined && maxNumBatchedTokens < maxNumSeqs) {
    throw refuse('maxNumBatchedTokens', `at least maxNumSeqs = ${maxNumSeqs}`, maxNumBatchedTokens);
  }
  return options;
}

/**
 * Settles what the caller left open.
 * @throws NdsError `ERR_USAGE` when an option does not fit the model or the KV cache holds no block.
 */
export function resolveOptions(options: LLMOptions, facts: LoadFacts): ResolvedOptions {
  const { maxPositionEmbeddings, checkpointDtype, isa } = facts;
  const device = resolveDevice(options.device ?? 'auto', facts);
  const autoDtype = checkpointDtype === 'bfloat16' && (device === 'cuda' || isa === 'avx512_bf16') ? 'bfloat16' : 'float32';
  const dtype = options.dtype === undefined || options.dtype === 'auto' ? autoDtype : options.dtype;
  const kvCacheDtype = options.kvCacheDtype === 'int8' ? 'int8' : dtype;
  const maxModelLen = options.maxModelLen ?? maxPositionEmbeddings;
  if (maxModelLen > maxPositionEmbeddings) {
    throw refuse('maxModelLen', `at most ${maxPositionEmbeddings}, the model's max_position_embeddings`, maxModelLen);
  }
  const maxNumSeqs = options.maxNumSeqs ?? Math.min(64, options.maxNumBatchedTokens ?? 64);
  const blockSize = options.blockSize ?? blockSizeUnit;
  const maxNumBatchedTokens = options.maxNumBatchedTokens ?? Math.max(1024, maxNumSeqs);
  const enablePrefixCaching = options.enablePrefixCaching ?? true;
  // What running sequences can fill; more only where it was asked for, and finished ones may leave something in it.
  const budgets = [options.kvCacheMemoryBytes, options.kvCacheMemoryShare, device === 'cuda' ? options.gpuMemoryUtilization : undefined];
  const asksForMemory = budgets.some((budget) => budget !== undefined);
  const mostBlocks = asksForMemory && enablePrefixCaching ? maxNumBlocks : Math.ceil(maxModelLen / blockSize) * maxNumSeqs;
  const speculativeConfig =
    options.speculativeConfig === undefined ? null : resolveSpeculativeConfig(options.speculativeConfig, facts.worldSize);
  const groups = facts.kvGroups(kvCacheDtype, blockSize, speculativeConfig?.draftTensorParallelSize ?? 1, device);
  // Drafts share what is left by one row for each sequence: enough for the most of half as many sequences as usual.
  const numDraftRows = (speculativeConfig?.numSpeculativeTokens ?? 0) * Math.min(maxNumSeqs, 32);
  const numLogitRows = Math.max(maxNumLogitRows, maxNumSeqs + numDraftRows);
  const numBlocks =
    device === 'cuda' && facts.cuda !== null
      ? resolveNumBlocks(
          { kvCacheMemoryShare: 1, ...definedBudget(options) },
          cudaMemory(facts.cuda, options, maxNumBatchedTokens, numLogitRows),
          groups,
          mostBlocks,
        )
      : resolveNumBlocks(options, facts, groups, mostBlocks);
  return {
    dtype,
    kvCacheDtype,
    device,
    deterministic: options.deterministic ?? false,
    blockSize,
    numBlocks,
    maxModelLen,
    maxNumSeqs,
    maxNumBatchedTokens,
    maxNumLogitRows: numLogitRows,
    enablePrefixCaching,
    schedulingPolicy: options.schedulingPolicy ?? 'fcfs',
    longPrefillTokenThreshold: options.longPrefillTokenThreshold ?? Math.ceil(maxNumBatchedTokens / 2),
    generationConfig: options.generationConfig ?? 'auto',
    numThreads: options.numThreads ?? null,
    asyncScheduling: options.asyncScheduling ?? true,
    speculativeConfig,
  };
}

/** @throws NdsError `ERR_UNSUPPORTED` where CUDA is asked for and cannot be used, with the reason. */
function resolveDevice(device: 'auto' | 'cpu' | 'cuda', { cuda, noCudaReason }: LoadFacts): 'cpu' | 'cuda' {
  if (device === 'cuda' && cuda === null)
    throw new NdsError('ERR_UNSUPPORTED', `Expected a CUDA device for device 'cuda' but received none: ${noCudaReason}`);
  // An emulated device is for tests: whoever wants it says so.
  if (device === 'auto') return cuda !== null && !cuda.isEmulated ? 'cuda' : 'cpu';
  return device;
}

/** A budget that the caller gave in bytes or as a share, and nothing else. */
function definedBudget({ kvCacheMemoryBytes, kvCacheMemoryShare }: LLMOptions) {
  if (kvCacheMemoryBytes !== undefined) return { kvCacheMemoryBytes, kvCacheMemoryShare: undefined };
  return kvCacheMemoryShare === undefined ? {} : { kvCacheMemoryShare };
}

/** Kernels, graphs and the libraries' workspaces. */
const cudaReserveBytes = 2 ** 29;

/** What weights and activations leave for KV of the part of a device that may be used. */
function cudaMemory(cuda: CudaFacts, { gpuMemoryUtilization = 0.9 }: LLMOptions, numTokens: number, numLogitRows: number): HostMemory {
  const usable = cuda.totalBytes * gpuMemoryUtilization - (cuda.totalBytes - cuda.freeBytes);
  const perRank = cuda.weightBytes + numTokens * cuda.activationBytesPerToken + numLogitRows * cuda.vocabSize * 4 * 4;
  const reserve = cuda.isEmulated ? 0 : cudaReserveBytes;
  const origin =
    `${gpuMemoryUtilization} of ${cuda.totalBytes} bytes (gpuMemoryUtilization), less ${cuda.totalBytes - cuda.freeBytes} in use ` +
    `and ${perRank + reserve} for weights and a step of each of ${cuda.numRanks} ranks`;
  return { freeMemoryBytes: Math.max(0, Math.floor(usable - cuda.numRanks * (perRank + reserve))), localWorldSize: cuda.numRanks, origin };
}

const refuse = (name: string, expected: string, value: unknown) => unexpected('ERR_USAGE', expected, name, value);
