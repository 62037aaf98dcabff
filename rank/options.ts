/** Options of `LLM.load`: checked alone, then resolved against the model and the machine. */
import { boolean, type Check, checked, checkFields, integerIn, isObject, numberWhere, oneOf, textFor, where } from '../protocol/checks.ts';
import { NdsError, unexpected } from '../protocol/errors.ts';
import { type KvCacheDtype, kvCacheDtypes, type WeightQuantization, weightQuantizations } from '../protocol/messages.ts';
import { maxNumThreads } from './gang/threads.ts';
import type { OnLoadProgress } from './load-progress.ts';
import type { SchedulerLimits } from './scheduler/limits.ts';
import {
  checkSpeculativeConfig,
  type ResolvedSpeculativeConfig,
  resolveSpeculativeConfig,
  type SpeculativeConfig,
} from './speculative/config.ts';

/** Load options. All are optional; an unknown one is refused. */
export interface LLMOptions {
  /** Activation dtype. `auto` (default) = bfloat16 for a bfloat16 checkpoint on CUDA or a CPU with bf16, else float32. */
  readonly dtype?: 'auto' | 'float32' | 'bfloat16' | undefined;
  /**
   * KV cache dtype. `auto` (default) = `dtype`, but bfloat16 where `dtype` is `auto` and the checkpoint bfloat16;
   * `bfloat16` beside float32 activations needs a CPU; `int8` = half of bfloat16 plus a scale per token and KV head.
   */
  readonly kvCacheDtype?: 'auto' | KvCacheDtype | undefined;
  /**
   * Weights of matrices on the CPU: `none` (default) = as stored, integers and FP8 of a checkpoint too; `expand` = those as
   * bfloat16, as always on CUDA; `int8`, `int4` = quantized at load, symmetric, with an fp16 scale for 128 inputs of an
   * output, of which `int4` has a multiple for each 32. `int4` keeps the LM head in int8; embeddings stay as stored.
   */
  readonly quantization?: WeightQuantization | undefined;
  /** Compute device. `auto` (default) = `cuda` if this build and machine have one, else `cpu`. */
  readonly device?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** Fixed summation order on CUDA, as on CPU: tokens depend on neither batch nor ranks; slower. Default false. */
  readonly deterministic?: boolean | undefined;
  /** On CUDA: share of device memory to use, in (0, 1]; KV gets what weights and activations leave. Default 0.9. */
  readonly gpuMemoryUtilization?: number | undefined;
  /** Tokens per KV block, a multiple of 32. Default 32. */
  readonly blockSize?: number | undefined;
  /**
   * KV cache bytes per rank; without prefix caching, at most what `maxNumSeqs` sequences of `maxModelLen` need.
   * Not with `kvCacheMemoryShare`.
   */
  readonly kvCacheMemoryBytes?: number | undefined;
  /**
   * Share for KV of the memory that weights and activations leave free on the host, in (0, 1], split over ranks. Default
   * 0.25, at most what sequences need.
   */
  readonly kvCacheMemoryShare?: number | undefined;
  /**
   * Max tokens of a sequence, prompt and output. Default and upper bound: what config.json says the model serves. With
   * RoPE of type dynamic or longrope, more than the trained length must be asked for, as it changes every token.
   */
  readonly maxModelLen?: number | undefined;
  /** Max sequences per step. Default 64, or `maxNumBatchedTokens` if less. */
  readonly maxNumSeqs?: number | undefined;
  /** Max tokens per step, at least `maxNumSeqs`. Default 1024, or `maxNumSeqs` if more. */
  readonly maxNumBatchedTokens?: number | undefined;
  /** Whether KV blocks are shared by prompts with equal prefixes. Default true. */
  readonly enablePrefixCaching?: boolean | undefined;
  /** `fcfs` (default) = first come, first served; `priority` = requests with lower `priority` first. */
  readonly schedulingPolicy?: 'fcfs' | 'priority' | undefined;
  /** Max prefill tokens per sequence and step while others compete. Default: half of `maxNumBatchedTokens`. */
  readonly longPrefillTokenThreshold?: number | undefined;
  /**
   * Whether the model's generation_config.json sets sampling defaults. `auto` (default) = yes, for temperature, top_k,
   * top_p, min_p, repetition_penalty and max_new_tokens; `none` = no.
   */
  readonly generationConfig?: 'auto' | 'none' | undefined;
  /** Threads per rank. Default: `OMP_NUM_THREADS`, else the number of CPU cores that the rank may use, of which a quota may leave fewer. */
  readonly numThreads?: number | undefined;
  /** Whether a step is built and sent while the previous one runs. Default true; the tokens are the same either way. */
  readonly asyncScheduling?: boolean | undefined;
  /** Speculative decoding. Default: none. */
  readonly speculativeConfig?: SpeculativeConfig | undefined;
  /** File for a trace of all ranks, for Perfetto or chrome://tracing. Default: `ndsrun --trace`, else none. */
  readonly trace?: string | undefined;
  /** File for every plan and its result, for `ndsrun replay`. Default: `ndsrun --record`, else none. */
  readonly record?: string | undefined;
  /**
   * Called while files are downloaded, and while the ranks load, some times a second and at begin and end, with the bytes of
   * weights packed so far on all ranks together. It should return soon; if it throws, the load rejects once the ranks have
   * loaded.
   */
  readonly onProgress?: OnLoadProgress | undefined;
  /** Whether KV block events are printed to standard error. Default: whether `NDS_KV_DEBUG` is 1. */
  readonly kvDebug?: boolean | undefined;
}

/** Resolved options before the KV cache has its size. */
export type SizedOptions = Omit<ResolvedOptions, 'numBlocks'>;

/** Resolved options. Only `numThreads` may be open (null): each rank resolves it. */
export interface ResolvedOptions extends SchedulerLimits {
  readonly dtype: 'float32' | 'bfloat16';
  readonly kvCacheDtype: KvCacheDtype;
  readonly quantization: WeightQuantization;
  readonly device: 'cpu' | 'cuda';
  readonly deterministic: boolean;
  readonly generationConfig: 'auto' | 'none';
  readonly numThreads: number | null;
  readonly asyncScheduling: boolean;
  readonly speculativeConfig: ResolvedSpeculativeConfig | null;
}

/** Facts that options are resolved against. */
export interface LoadFacts {
  readonly worldSize: number;
  readonly contextLengths: { readonly default: number; readonly max: number };
  /** dtype of the checkpoint's weights. */
  readonly checkpointDtype: string;
  /** Instruction set in use. */
  readonly isa: string;
  /** Rank 0's device; null if none is usable, with the reason. */
  readonly cuda: { readonly isEmulated: boolean } | null;
  readonly noCudaReason: string;
}

/** Min LM-head rows per step, for `computeLogits` beside decodes. */
const maxNumLogitRows = 128;
/** Attention sums over 32 KV slots at a time. */
const blockSizeUnit = 32;

const memoryShare = numberWhere('a number above 0 and up to 1', (value) => value > 0 && value <= 1);
const file = textFor('the path of a file');
const tokens = integerIn(1, 2 ** 20);

/** Checks by option. `device` and `speculativeConfig` have their own. */
const checks: Readonly<Record<keyof Required<LLMOptions>, Check<unknown> | null>> = {
  dtype: oneOf('auto', 'float32', 'bfloat16'),
  kvCacheDtype: oneOf('auto', ...kvCacheDtypes),
  quantization: oneOf(...weightQuantizations),
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
  onProgress: where('a function', (value: unknown) => typeof value === 'function'),
  trace: file,
  record: file,
  speculativeConfig: null,
};

const devices = oneOf('auto', 'cpu', 'cuda');

/**
 * Checks the options alone.
 * @throws NdsError `ERR_USAGE` naming the option that is unknown, of a wrong type or out of range; `ERR_UNSUPPORTED`
 * for an unknown device.
 */
export function checkOptions(options: unknown = {}): LLMOptions {
  if (!isObject(options)) throw unexpected('ERR_USAGE', 'an object of load options', null, options);
  checkFields(options, checks, { plural: 'load options', knowsForeign: true }, 'ERR_USAGE');
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

/** Whether an instruction set multiplies bf16 in hardware. */
export function multipliesBf16(isa: string): boolean {
  return isa === 'amx' || isa.endsWith('_bf16');
}

/**
 * Resolves the options that the caller left open, all but the number of KV blocks, for which the ranks are asked.
 * @throws NdsError `ERR_USAGE` when an option does not fit the model, `ERR_UNSUPPORTED` when it does not fit the device.
 */
export function resolveOptions(options: LLMOptions, facts: LoadFacts): SizedOptions {
  const { contextLengths, checkpointDtype, isa } = facts;
  const device = resolveDevice(options.device ?? 'auto', facts);
  const autoDtype = checkpointDtype === 'bfloat16' && (device === 'cuda' || multipliesBf16(isa)) ? 'bfloat16' : 'float32';
  const isAuto = options.dtype === undefined || options.dtype === 'auto';
  const dtype = isAuto ? autoDtype : options.dtype;
  const autoKvDtype = isAuto && checkpointDtype === 'bfloat16' ? 'bfloat16' : dtype;
  const kvCacheDtype = resolveKvCacheDtype(options.kvCacheDtype ?? 'auto', autoKvDtype, dtype, device);
  const quantization = options.quantization ?? 'none';
  const maxModelLen = options.maxModelLen ?? contextLengths.default;
  if (maxModelLen > contextLengths.max) {
    throw refuse('maxModelLen', `at most ${contextLengths.max}, the longest context that the model's config.json allows`, maxModelLen);
  }
  const maxNumSeqs = options.maxNumSeqs ?? Math.min(64, options.maxNumBatchedTokens ?? 64);
  const blockSize = options.blockSize ?? blockSizeUnit;
  const maxNumBatchedTokens = options.maxNumBatchedTokens ?? Math.max(1024, maxNumSeqs);
  const speculativeConfig =
    options.speculativeConfig === undefined ? null : resolveSpeculativeConfig(options.speculativeConfig, facts.worldSize, quantization);
  if (device === 'cuda') {
    refuseQuantization('quantization', quantization);
    refuseQuantization('speculativeConfig.quantization', speculativeConfig?.quantization ?? 'none');
  }
  // Besides one row per sequence, drafts share rows for `numSpeculativeTokens` of up to 32 sequences.
  const numDraftRows = (speculativeConfig?.numSpeculativeTokens ?? 0) * Math.min(maxNumSeqs, 32);
  const numLogitRows = Math.max(maxNumLogitRows, maxNumSeqs + numDraftRows);
  return {
    dtype,
    kvCacheDtype,
    quantization,
    device,
    deterministic: options.deterministic ?? false,
    blockSize,
    maxModelLen,
    maxNumSeqs,
    maxNumBatchedTokens,
    maxNumLogitRows: numLogitRows,
    enablePrefixCaching: options.enablePrefixCaching ?? true,
    schedulingPolicy: options.schedulingPolicy ?? 'fcfs',
    longPrefillTokenThreshold: options.longPrefillTokenThreshold ?? Math.ceil(maxNumBatchedTokens / 2),
    generationConfig: options.generationConfig ?? 'auto',
    numThreads: options.numThreads ?? null,
    asyncScheduling: options.asyncScheduling ?? true,
    speculativeConfig,
  };
}

/** @throws NdsError `ERR_UNSUPPORTED` when CUDA is requested but unusable, with the reason. */
function resolveDevice(device: 'auto' | 'cpu' | 'cuda', { cuda, noCudaReason }: LoadFacts): 'cpu' | 'cuda' {
  if (device === 'cuda' && cuda === null)
    throw new NdsError('ERR_UNSUPPORTED', `Expected a CUDA device for device 'cuda' but received none: ${noCudaReason}`);
  // An emulated device is for tests, and must be requested.
  if (device === 'auto') return cuda !== null && !cuda.isEmulated ? 'cuda' : 'cpu';
  return device;
}

/** @throws NdsError `ERR_UNSUPPORTED` for a KV cache wider than activations, and on CUDA for one of another float type. */
function resolveKvCacheDtype(
  requested: 'auto' | KvCacheDtype,
  auto: KvCacheDtype,
  dtype: 'float32' | 'bfloat16',
  device: 'cpu' | 'cuda',
): KvCacheDtype {
  const kvCacheDtype = requested === 'auto' ? auto : requested;
  const fits = kvCacheDtype === 'int8' || kvCacheDtype === dtype || (kvCacheDtype === 'bfloat16' && device === 'cpu');
  if (fits) return kvCacheDtype;
  const [where, expected] = kvCacheDtype === 'bfloat16' ? [' on CUDA', `'float32' or 'int8'`] : ['', `'bfloat16' or 'int8'`];
  const what = `kvCacheDtype beside ${dtype} activations${where}`;
  throw new NdsError('ERR_UNSUPPORTED', `Expected ${expected} for ${what} but received '${kvCacheDtype}'`);
}

/** @throws NdsError `ERR_UNSUPPORTED`: kernels for quantized weights are the CPU's. */
function refuseQuantization(name: string, quantization: WeightQuantization): void {
  if (quantization === 'none' || quantization === 'expand') return;
  throw new NdsError(
    'ERR_UNSUPPORTED',
    `Expected 'none' or 'expand' for ${name} on CUDA but received '${quantization}', which needs device: 'cpu'`,
  );
}

const refuse = (name: string, expected: string, value: unknown) => unexpected('ERR_USAGE', expected, name, value);
