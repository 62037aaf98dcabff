/** The only importer of the addon; every type that crosses into native code is declared here. */
import { loadAddon, nativeFiles } from '../native/load.mjs';
import { toNdsError } from '../protocol/errors.ts';
import type { DraftRule, KvCacheDtype } from '../protocol/messages.ts';

/** Stored element type of a tensor, or of the activations. */
export type DType = 'float32' | 'bfloat16' | 'float16';

/** Rows `[rowBegin, rowEnd)` and columns `[colBegin, colEnd)` of a row-major tensor in a checkpoint file. */
export interface TensorSlice {
  /** Name of the tensor, for error messages. */
  readonly name: string;
  /** Index into `ProgramSpec.files`. */
  readonly file: number;
  /** Where the whole tensor begins in the file, in bytes. */
  readonly byteOffset: number;
  readonly dtype: DType;
  /** Columns of the whole tensor: its row stride in elements. A vector is one row. */
  readonly numCols: number;
  readonly rowBegin: number;
  readonly rowEnd: number;
  readonly colBegin: number;
  readonly colEnd: number;
}

/** One weight as native keeps it. */
export type WeightSpec =
  /** fp32 copy of a vector (norm weight), or of vectors one after the other, each padded to 32 elements (merged biases). */
  | { readonly kind: 'vector'; readonly pieces: readonly TensorSlice[] }
  /** Row-major rows used in place from the mapped file: an embedding. `firstRow` is the id of row 0. */
  | { readonly kind: 'table'; readonly slice: TensorSlice; readonly firstRow: number }
  /**
   * A matrix `[n, k]` packed for y = x Wᵀ. Pieces follow each other along n, each padded to 32 rows.
   * k is summed in chunks: `chunkEdges` `[numLocalChunks + 1]` counts from this rank's first column; the chunks are
   * `firstChunk …` of `numChunks` in the whole model, and partial sums join by the fixed binary tree over those.
   */
  | {
      readonly kind: 'linear';
      readonly pieces: readonly TensorSlice[];
      readonly chunkEdges: readonly number[];
      readonly firstChunk: number;
      readonly numChunks: number;
    };

/** Handle of a value or weight: an index into `ProgramSpec.values` or `ProgramSpec.weights`. */
export type ValueId = number;
export type WeightId = number;

/** Rows of a value: one per token of the step, or one per row of `logitRows`. */
export type RowSpace = 'tokens' | 'logitRows';

/** A matrix that the program computes: `fp32`, or `activation`, the dtype that enters matrix products. */
export interface ValueSpec {
  readonly rows: RowSpace;
  readonly width: number;
  readonly type: 'fp32' | 'activation';
}

/** Where q, k and v of this rank lie in the columns of a merged qkv value, and which heads they are. */
export interface HeadLayout {
  readonly headDim: number;
  readonly firstHead: number;
  readonly numHeads: number;
  readonly firstKvHead: number;
  readonly numKvHeads: number;
  /** Query heads that share one KV head, in the whole model. */
  readonly groupSize: number;
  readonly qOffset: number;
  readonly kOffset: number;
  readonly vOffset: number;
}

/** The operators: the vocabulary a model is written in. */
type Operator =
  /** out fp32: the embedding row of every token, from whichever rank owns it. */
  | { readonly op: 'embedding'; readonly table: WeightId; readonly out: ValueId }
  /** out activation = x / rms(x) · weight. */
  | { readonly op: 'rmsNorm'; readonly x: ValueId; readonly weight: WeightId; readonly eps: number; readonly out: ValueId }
  /** out fp32 = x Wᵀ + bias. With `partial`, out holds this rank's partial sums for `allReduce`, and bias is not allowed. */
  | {
      readonly op: 'linear';
      readonly x: ValueId;
      readonly weight: WeightId;
      readonly bias: WeightId | null;
      readonly partial: boolean;
      readonly out: ValueId;
    }
  /** out fp32 = all ranks' partial sums joined by the tree, + bias. */
  | { readonly op: 'allReduce'; readonly x: ValueId; readonly bias: WeightId | null; readonly out: ValueId }
  /** RMS norm of every q head and k head of qkv, in place. */
  | {
      readonly op: 'headNorm';
      readonly qkv: ValueId;
      readonly heads: HeadLayout;
      readonly qWeight: WeightId;
      readonly kWeight: WeightId;
      readonly eps: number;
    }
  /** Rotates q and k; writes k and v to the KV cache of `layer` and q, rotated, to out (activation). */
  | {
      readonly op: 'ropeAndStore';
      readonly qkv: ValueId;
      readonly heads: HeadLayout;
      readonly rope: number;
      readonly layer: number;
      readonly out: ValueId;
    }
  /** out activation: causal attention over cached and new tokens; with a window, over its last `slidingWindow` (0 = none). */
  | {
      readonly op: 'pagedAttention';
      readonly q: ValueId;
      readonly heads: HeadLayout;
      readonly layer: number;
      readonly scale: number;
      readonly slidingWindow: number;
      readonly out: ValueId;
    }
  /** out activation = silu(gate) · up; gateUp has gate in columns 0 … width-1 and up from `upOffset`. */
  | { readonly op: 'siluMul'; readonly gateUp: ValueId; readonly upOffset: number; readonly out: ValueId }
  /** out fp32 = a + b. */
  | { readonly op: 'add'; readonly a: ValueId; readonly b: ValueId; readonly out: ValueId }
  /** out (logitRows) = the rows of x (tokens) that `logitRows` names. */
  | { readonly op: 'gatherRows'; readonly x: ValueId; readonly out: ValueId }
  /** Takes a token from every `sample` row of this rank's logits, or hands `return` rows back. */
  | { readonly op: 'sample'; readonly logits: ValueId; readonly firstTokenId: number; readonly numTokenIds: number };

/** What an operator belongs to, for traces; native does not read it. */
export interface OpGroup {
  readonly name: string;
  /** Decoder layer, where it is part of one. */
  readonly layer: number | null;
}

/** An operator of a program. */
export type OpSpec = Operator & { readonly group?: OpGroup };

/** A rotary embedding: cos and sin of position · invFreq, times `scale`. */
export interface RopeSpec {
  readonly invFreq: Float32Array;
  readonly scale: number;
}

/** A model, sharded for one rank: what `Runner.load` takes. */
export interface ProgramSpec {
  readonly files: readonly string[];
  readonly weights: readonly WeightSpec[];
  readonly values: readonly ValueSpec[];
  readonly ops: readonly OpSpec[];
  readonly ropes: readonly RopeSpec[];
  /** dtype of values of type `activation`. */
  readonly dtype: 'float32' | 'bfloat16';
  /** Rows of the whole embedding and LM head. */
  readonly vocabSize: number;
  /** Ids from here on are padding and are never sampled. */
  readonly sampleVocabSize: number;
  readonly hiddenSize: number;
  readonly kv: {
    readonly numLayers: number;
    readonly numBlocks: number;
    /** Tokens per block, a multiple of 32. */
    readonly blockSize: number;
    readonly numKvHeads: number;
    readonly headDim: number;
    /** That of activations, or int8. */
    readonly dtype: KvCacheDtype;
  };
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  readonly maxModelLen: number;
}

/** A smaller model that proposes tokens to another, whose sequences it follows. */
export interface DraftSpec {
  readonly program: ProgramSpec;
  /** Whether the ranks share it; else each has all of it, and it needs no messages. */
  readonly isSharded: boolean;
  /** Whether it proposes its likeliest tokens, whatever the slots say. */
  readonly isGreedy: boolean;
}

/** What `Runner.load` did. */
export interface LoadReport {
  /** Bytes of packed and mapped weights on this rank. */
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly scratchBytes: number;
}

export interface RunnerOptions {
  readonly rank: number;
  readonly worldSize: number;
  /** Inherited descriptor of the memory that the ranks of this host share; -1 with one rank. */
  readonly shmFd: number;
  /** Which of this host's ranks this is, and how many there are: threads are pinned when together they fill the allowed cores. */
  readonly localRank: number;
  readonly localWorldSize: number;
  readonly numThreads: number;
  /** Where to compute on CUDA, and whether sums have one order whatever the batch and the ranks; without it, the CPU computes. */
  readonly cuda?: { readonly deviceIndex: number; readonly deterministic: boolean } | undefined;
  /** How long ranks wait for each other until the first step, and in a step. */
  readonly startupTimeoutMs: number;
  readonly stepTimeoutMs: number;
  /** Whether results say when each operator ran. */
  readonly trace?: boolean;
}

/** A rank's native half: one executor thread that loads a model and runs plans in order. */
export interface Runner {
  /** Maps, slices and packs the weights, and allocates KV and scratch. At most one model at a time, perhaps with a draft. */
  load(spec: ProgramSpec, draft?: DraftSpec, rule?: DraftRule): Promise<LoadReport>;
  /** Queues one step. The bytes are copied; the promise settles when the step is done. */
  submit(step: number, directory: Int32Array, bytes: Uint8Array): Promise<{ directory: Int32Array; bytes: Uint8Array }>;
  /** Ends waiting collectives, drains the queue, frees everything. Steps not yet run reject with `ERR_CLOSED`. */
  close(): Promise<void>;
}

export interface CpuInfo {
  /** Instruction sets that this processor and build offer, best first: `avx512_bf16`, `avx512`, `avx2`, `portable`. */
  readonly isas: readonly string[];
  /** The one in use (`NDS_ISA` forces one). */
  readonly isa: string;
  readonly model: string;
  readonly allowedCores: number;
}

/** A device as CUDA describes it. */
export interface CudaDevice {
  readonly name: string;
  readonly pciBusId: string;
  readonly computeCapability: string;
  readonly numMultiprocessors: number;
  readonly totalBytes: number;
  /** Null where it was not asked for. */
  readonly freeBytes: number | null;
}

/** A library that the CUDA backend opens at run time, and where it was found. */
export interface CudaLibrary {
  readonly name: string;
  readonly path: string | null;
  readonly version: string | null;
  readonly reason: string | null;
}

export interface CudaInfo {
  /** Where nds_cuda.so is looked for. */
  readonly path: string;
  /** Why CUDA cannot be used; null where it can. */
  readonly reason: string | null;
  readonly isEmulated: boolean;
  readonly driverVersion: string;
  readonly runtimeVersion: string;
  readonly devices: readonly CudaDevice[];
  readonly libraries: readonly CudaLibrary[];
}

export interface Addon {
  readonly version: string;
  cpuInfo(): CpuInfo;
  /** Opens the CUDA backend. `device`, counted round, is the one whose free memory is measured, which makes a context on it. */
  cudaInfo(device?: number): CudaInfo;
  /**
   * Kills this process when its parent is gone: parent-death signal, and a native thread that watches `watchFd` (-1 = none)
   * for end-of-file. Exits at once when the parent is no longer `parentPid`.
   */
  guardProcess(parentPid: number, watchFd: number): void;
  createRunner(options: RunnerOptions): Runner;
  /** Single operators on plain arrays, on a named instruction set: for tests and benchmarks only. */
  readonly testing: Record<string, (...args: never[]) => unknown>;
}

/** How a CUDA backend was built. */
export interface CudaBuild {
  readonly mode: 'nvcc' | 'emulated' | 'off';
  readonly compiler: string;
  /** Compute capabilities without their dot; none on the emulated device. */
  readonly archs: readonly string[];
  /** Why there is no library; null where there is one, or none was wanted. */
  readonly failure: string | null;
}

/** Where the addon lies and looks for its CUDA backend, and how that was built, where this is known. */
export function addonFiles(): { readonly addon: string; readonly cuda: string; readonly cudaBuild: CudaBuild | null } {
  return nativeFiles();
}

/** The addon, built on first use when it is not there. @throws NdsError `ERR_NATIVE`. */
export function native(): Addon {
  try {
    return loadAddon() as Addon;
  } catch (error) {
    throw toNdsError(error, 'ERR_NATIVE');
  }
}
