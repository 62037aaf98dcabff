/** Options of `LLM.load`: checked on their own, then completed from the model and the machine. */
import { NdsError } from '../protocol/errors.ts';
import { describe } from './sampling-params.ts';

/** How to load a model. Every option is optional; an unknown one is refused. */
export interface LLMOptions {
  /** Type of activations and KV cache. `auto` (default) = bfloat16 for a bfloat16 checkpoint on a processor with the instructions, else float32. */
  readonly dtype?: 'auto' | 'float32' | 'bfloat16' | undefined;
  /** Where to compute. Default `auto`, which is `cpu`. */
  readonly device?: 'auto' | 'cpu' | undefined;
  /** Tokens per KV block, a multiple of 32. Default 32. */
  readonly blockSize?: number | undefined;
  /** Bytes of KV cache on each rank. Default: what `maxNumSeqs` sequences of `maxModelLen` need, at most a quarter of the free memory. */
  readonly kvCacheMemoryBytes?: number | undefined;
  /** Most tokens of a sequence, prompt and output. Default and upper bound: the model's `max_position_embeddings`. */
  readonly maxModelLen?: number | undefined;
  /** Most sequences of one step. Default 64, or `maxNumBatchedTokens` if that is less. */
  readonly maxNumSeqs?: number | undefined;
  /** Most tokens of one step, at least `maxNumSeqs`. Default 1024, or `maxNumSeqs` if that is more. */
  readonly maxNumBatchedTokens?: number | undefined;
  /** Threads of each rank. Default: `OMP_NUM_THREADS`, else the processor cores that the rank may use. */
  readonly numThreads?: number | undefined;
  /** Whether a step is built and sent while the one before it runs. Default true; the tokens are the same either way. */
  readonly asyncScheduling?: boolean | undefined;
  /** File for a trace of all ranks in Chrome's format (chrome://tracing, Perfetto). Default: none, or what `ndsrun --trace` says. */
  readonly trace?: string | undefined;
  /** File for every plan and its result, for `ndsrun replay`. Default: none, or what `ndsrun --record` says. */
  readonly record?: string | undefined;
  /** Prints what becomes of KV blocks to standard error. Default: whether `NDS_KV_DEBUG` is 1. */
  readonly kvDebug?: boolean | undefined;
}

/** Options with nothing left open but the threads, which each rank settles for itself. */
export interface ResolvedOptions {
  readonly dtype: 'float32' | 'bfloat16';
  readonly device: 'cpu';
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  readonly numThreads: number | null;
  readonly asyncScheduling: boolean;
}

/** What options depend on. */
export interface LoadFacts {
  readonly maxPositionEmbeddings: number;
  /** Type in which the checkpoint stores its weights. */
  readonly checkpointDtype: string;
  /** Instruction set in use. */
  readonly isa: string;
  /** Bytes of memory that this host has free. */
  readonly freeMemoryBytes: number;
  /** Ranks that share it. */
  readonly localWorldSize: number;
  /** Bytes of one KV block on each rank. */
  readonly bytesPerBlock: (dtype: 'float32' | 'bfloat16', blockSize: number) => readonly number[];
}

/** Rows that the LM head takes in one step for `computeLogits`, where the sequences leave room. */
const maxNumLogitRows = 128;
/** KV slots of 32 tokens are what attention sums over at a time. */
const blockSizeUnit = 32;
const freeMemoryShare = 0.25;

const limits = {
  blockSize: [blockSizeUnit, 4096],
  kvCacheMemoryBytes: [1, Number.MAX_SAFE_INTEGER],
  maxModelLen: [1, 2 ** 31 - 1],
  maxNumSeqs: [1, 2 ** 16],
  maxNumBatchedTokens: [1, 2 ** 20],
  numThreads: [1, 1024],
} as const;

const flags: readonly string[] = ['asyncScheduling', 'kvDebug'];
const paths: readonly string[] = ['trace', 'record'];
const choices = { dtype: ['auto', 'float32', 'bfloat16'], device: ['auto', 'cpu'] } as const;

/**
 * Checks the options by themselves.
 * @throws NdsError `ERR_USAGE` naming the option that is unknown, of a wrong type or out of range; `ERR_UNSUPPORTED` for another device.
 */
export function checkOptions(options: unknown = {}): LLMOptions {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new NdsError('ERR_USAGE', `Expected an object of load options but received ${describe(options)}`);
  }
  const names = [...Object.keys(choices), ...Object.keys(limits), ...flags, ...paths];
  for (const [name, value] of Object.entries(options)) {
    if (!names.includes(name)) throw new NdsError('ERR_USAGE', `Expected load options among ${names.join(', ')} but received '${name}'`);
    if (value !== undefined) checkOption(name, value);
  }
  const { blockSize, maxNumSeqs, maxNumBatchedTokens } = options as LLMOptions;
  if (blockSize !== undefined && blockSize % blockSizeUnit !== 0) throw refuse('blockSize', `a multiple of ${blockSizeUnit}`, blockSize);
  if (maxNumSeqs !== undefined && maxNumBatchedTokens !== undefined && maxNumBatchedTokens < maxNumSeqs) {
    throw refuse('maxNumBatchedTokens', `at least maxNumSeqs = ${maxNumSeqs}`, maxNumBatchedTokens);
  }
  return options;
}

function checkOption(name: string, value: unknown): void {
  if (Object.hasOwn(choices, name)) {
    const allowed: readonly string[] = choices[name as keyof typeof choices];
    if (typeof value === 'string' && allowed.includes(value)) return;
    const code = name === 'device' && typeof value === 'string' ? 'ERR_UNSUPPORTED' : 'ERR_USAGE';
    throw refuse(name, allowed.map((choice) => `'${choice}'`).join(' or '), value, code);
  }
  if (flags.includes(name)) {
    if (typeof value === 'boolean') return;
    throw refuse(name, 'true or false', value);
  }
  if (paths.includes(name)) {
    if (typeof value === 'string' && value !== '') return;
    throw refuse(name, 'the path of a file', value);
  }
  const [minimum, maximum] = limits[name as keyof typeof limits];
  if (Number.isSafeInteger(value) && (value as number) >= minimum && (value as number) <= maximum) return;
  throw refuse(name, `an integer from ${minimum} to ${maximum}`, value);
}

/**
 * Settles what the caller left open.
 * @throws NdsError `ERR_USAGE` when an option does not fit the model or the KV cache holds no block.
 */
export function resolveOptions(options: LLMOptions, facts: LoadFacts): ResolvedOptions {
  const { maxPositionEmbeddings, checkpointDtype, isa } = facts;
  const autoDtype = checkpointDtype === 'bfloat16' && isa === 'avx512_bf16' ? 'bfloat16' : 'float32';
  const dtype = options.dtype === undefined || options.dtype === 'auto' ? autoDtype : options.dtype;
  const maxModelLen = options.maxModelLen ?? maxPositionEmbeddings;
  if (maxModelLen > maxPositionEmbeddings) {
    throw refuse('maxModelLen', `at most ${maxPositionEmbeddings}, the model's max_position_embeddings`, maxModelLen);
  }
  const maxNumSeqs = options.maxNumSeqs ?? Math.min(64, options.maxNumBatchedTokens ?? 64);
  const blockSize = options.blockSize ?? blockSizeUnit;
  const mostBlocks = Math.ceil(maxModelLen / blockSize) * maxNumSeqs;
  return {
    dtype,
    device: 'cpu',
    blockSize,
    numBlocks: resolveNumBlocks(options, facts, facts.bytesPerBlock(dtype, blockSize), mostBlocks),
    maxModelLen,
    maxNumSeqs,
    maxNumBatchedTokens: options.maxNumBatchedTokens ?? Math.max(1024, maxNumSeqs),
    maxNumLogitRows: Math.max(maxNumLogitRows, maxNumSeqs),
    numThreads: options.numThreads ?? null,
    asyncScheduling: options.asyncScheduling ?? true,
  };
}

/** Blocks that every rank can hold: the rank with the largest blocks decides. More than `mostBlocks` could never be used. */
function resolveNumBlocks(options: LLMOptions, facts: LoadFacts, bytesPerBlock: readonly number[], mostBlocks: number): number {
  const bytes = options.kvCacheMemoryBytes ?? Math.floor((facts.freeMemoryBytes * freeMemoryShare) / facts.localWorldSize);
  const largest = Math.max(...bytesPerBlock);
  const numBlocks = Math.min(mostBlocks, Math.floor(bytes / largest));
  if (numBlocks < 1) throw refuse('kvCacheMemoryBytes', `at least ${largest} bytes, one block`, bytes);
  return numBlocks;
}

/**
 * Threads of a rank that was told no number.
 * @throws NdsError `ERR_USAGE` when `OMP_NUM_THREADS` is no number. It may be a list, one entry a nesting level: the first counts.
 */
export function defaultNumThreads(ompNumThreads: string | undefined, allowedCores: number): number {
  if (ompNumThreads === undefined || ompNumThreads === '') return allowedCores;
  const first = ompNumThreads.split(',')[0]?.trim() ?? '';
  const [minimum, maximum] = limits.numThreads;
  const value = Number(first);
  if (!/^\d+$/.test(first) || value < minimum || value > maximum) {
    throw refuse('OMP_NUM_THREADS', `an integer from ${minimum} to ${maximum}`, ompNumThreads);
  }
  return value;
}

function refuse(name: string, expected: string, value: unknown, code: 'ERR_USAGE' | 'ERR_UNSUPPORTED' = 'ERR_USAGE'): NdsError {
  return new NdsError(code, `Expected ${expected} for ${name} but received ${describe(value)}`);
}
