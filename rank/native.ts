/** The only importer of the addon; declares every type that crosses into native code. */
import { buildMissing, loadAddon, nativeFiles } from '../native/load.mjs';
import { toNdsError } from '../protocol/errors.ts';
import type { DraftRule, KvCacheDtype } from '../protocol/messages.ts';

/** The user's cache folder, and a lock file between processes. */
export { cacheFolder, withLock } from '../native/load.mjs';

/** Element type of a stored tensor, or of activations. */
export type DType = 'float32' | 'bfloat16' | 'float16';

/** How a matrix is kept: in a stored type, or quantized at load, int8 in groups of 128 inputs and int4 in groups of 32. */
export type WeightFormat = DType | 'int8' | 'int4';

/**
 * Scales of a matrix `[n, k]` that is stored as float8_e4m3, one for each block of rows and columns, counted from the
 * first of the whole matrix: `[⌈n / rowsPerScale⌉, ⌈k / colsPerScale⌉]`, row-major.
 */
export interface Fp8Scales {
  /** Index into `ProgramSpec.files`. */
  readonly file: number;
  /** Start of the scales in the file, in bytes. */
  readonly byteOffset: number;
  readonly dtype: DType;
  readonly rowsPerScale: number;
  readonly colsPerScale: number;
}

/** A tensor in a checkpoint file. */
export interface StoredPart {
  /** Index into `ProgramSpec.files`. */
  readonly file: number;
  /** Start in the file, in bytes. */
  readonly byteOffset: number;
}

/**
 * Order of the integers of a matrix `[n, k]`. `bytes`: int8 `[n, k]`. The others are unsigned, in 32-bit words whose
 * lowest bits come first: `rows` `[n, ⌈k / perWord⌉]`; `gptq` `[k / perWord, n]`, a word holds columns; `awq`
 * `[k, n / 8]`, a word holds rows in the order 0, 2, 4, 6, 1, 3, 5, 7.
 */
export type IntegerLayout = 'bytes' | 'rows' | 'awq' | 'gptq';

/** A matrix `[n, k]` stored as integers q: its values are bf16((q − z) · scale), the product rounded to fp32 first. */
export interface StoredIntegers {
  readonly layout: IntegerLayout;
  readonly bits: 4 | 8;
  /** n of the whole matrix. */
  readonly numRows: number;
  /** Columns of a group. */
  readonly groupSize: number;
  /** The scale of row r and group g is element r · rowStride + g · groupStride. */
  readonly scales: StoredPart & { readonly dtype: DType; readonly rowStride: number; readonly groupStride: number };
  /** Zero points: `bytes` as scales lie; in words of rows `[⌈n / perWord⌉, groups]` for `rows`, else `[groups, n / perWord]`. */
  readonly zeros: StoredPart | null;
  /** Added to a stored zero point; the zero point where none is stored. */
  readonly zeroOffset: number;
  /** int32 `[k]`, the group of each column; `null` = ⌊column / groupSize⌋. */
  readonly groupIndex: StoredPart | null;
}

/** Rows `[rowBegin, rowEnd)` and columns `[colBegin, colEnd)` of a row-major tensor in a checkpoint file. */
export interface TensorSlice {
  /** Tensor name, for error messages. */
  readonly name: string;
  /** Index into `ProgramSpec.files`. */
  readonly file: number;
  /** Start of the whole tensor in the file, in bytes. */
  readonly byteOffset: number;
  /** Type of its values: as stored, or bfloat16 with `fp8` or `integers`. */
  readonly dtype: DType;
  /** Set for a tensor stored as float8_e4m3: its values are bf16(w · scale). */
  readonly fp8: Fp8Scales | null;
  /** Set for a tensor stored as integers. */
  readonly integers: StoredIntegers | null;
  /** Columns of the whole tensor: its row stride in elements. A vector is one row. */
  readonly numCols: number;
  readonly rowBegin: number;
  readonly rowEnd: number;
  readonly colBegin: number;
  readonly colEnd: number;
}

/** One weight as native keeps it. */
export type WeightSpec =
  /** fp32 copy of a vector (norm weight), or of concatenated vectors, each padded to 32 elements (merged biases). */
  | { readonly kind: 'vector'; readonly pieces: readonly TensorSlice[] }
  /**
   * Row-major rows: an embedding, used in place from the mapped file where it is stored in `dtype`. `firstRow` is the id
   * of row 0.
   */
  | { readonly kind: 'table'; readonly slice: TensorSlice; readonly dtype: DType; readonly firstRow: number }
  /**
   * A matrix `[n, k]` packed in `format` for y = x Wᵀ. Pieces are concatenated along n, each padded to 32 rows, and
   * converted to `format`: their own type, float32, or, on the CPU, a quantized one.
   * k is summed in chunks: `chunkEdges` `[numLocalChunks + 1]` counts from this rank's first column; the chunks are
   * `firstChunk …` of `numChunks` in the whole model, and partial sums join by the fixed binary tree over those.
   */
  | {
      readonly kind: 'linear';
      readonly pieces: readonly TensorSlice[];
      readonly format: WeightFormat;
      readonly chunkEdges: readonly number[];
      readonly firstChunk: number;
      readonly numChunks: number;
    };

/** Handle of a value or weight: an index into `ProgramSpec.values` or `ProgramSpec.weights`. */
export type ValueId = number;
export type WeightId = number;

/** Rows of a value: one per token of the step, or one per row of `logitRows`. */
export type RowSpace = 'tokens' | 'logitRows';

/** A matrix that the program computes: `fp32`, or `activation`, the input dtype of matrix products. */
export interface ValueSpec {
  readonly rows: RowSpace;
  readonly width: number;
  readonly type: 'fp32' | 'activation';
}

/** This rank's heads, and the column offsets of q, k and v in a merged qkv value. */
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

/** The operators that a model is built from. */
type Operator =
  /** out fp32: the embedding row of every token, from the rank that owns it. */
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
  /** out (logitRows) = the rows `logitRows` of x (tokens). */
  | { readonly op: 'gatherRows'; readonly x: ValueId; readonly out: ValueId }
  /** Returns x / rms(x) · weight, in fp32, of the plan's `hiddenRows` of x (tokens, fp32). */
  | { readonly op: 'hiddenStates'; readonly x: ValueId; readonly weight: WeightId; readonly eps: number }
  /** Samples a token from every `sample` row of this rank's logits; returns `return` rows. */
  | { readonly op: 'sample'; readonly logits: ValueId; readonly firstTokenId: number; readonly numTokenIds: number };

/** Group of an operator, for traces and the launcher's watchdog. */
export interface OpGroup {
  readonly name: string;
  /** Decoder layer; null outside of one. */
  readonly layer: number | null;
}

/** An operator of a program. */
export type OpSpec = Operator & { readonly group?: OpGroup };

/**
 * A rotary embedding: cos and sin of position · invFreq, times `scale`. Queries are multiplied by
 * `queryScales[⌊position / queryLength⌋]` too, unless it is empty.
 */
export interface RopeSpec {
  readonly invFreq: Float32Array;
  readonly scale: number;
  readonly queryScales: Float32Array;
  readonly queryLength: number;
}

/** A file that keeps a program's packed matrices between loads, on the CPU; its layout is in native/cpu/packed_file.h. */
export interface PackedFileSpec {
  /** Read instead of packing; empty = none. A file that is not whole, or has another key, is not used. */
  readonly readPath: string;
  /** Created once they were packed; empty = none. */
  readonly writePath: string;
  /** 32 bytes that tell what is in the file. */
  readonly key: Uint8Array;
  /** JSON for listings. */
  readonly label: string;
}

/** A model, sharded for one rank: the input of `Runner.load`. */
export interface ProgramSpec {
  readonly files: readonly string[];
  readonly weights: readonly WeightSpec[];
  readonly values: readonly ValueSpec[];
  readonly ops: readonly OpSpec[];
  readonly ropes: readonly RopeSpec[];
  /** dtype of `activation` values. */
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
    /** The dtype of activations, or int8. */
    readonly dtype: KvCacheDtype;
  };
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  readonly maxModelLen: number;
  readonly packedFile?: PackedFileSpec | undefined;
}

/** A draft model, which proposes tokens for the target's sequences. */
export interface DraftSpec {
  readonly program: ProgramSpec;
  /** Whether it is sharded over the ranks; else each rank holds all of it, and it needs no communication. */
  readonly isSharded: boolean;
  /** Whether it drafts greedily, whatever the slots' sampling parameters. */
  readonly isGreedy: boolean;
}

/** Memory used by a load. */
export interface LoadReport {
  /** Bytes of packed and mapped weights on this rank. */
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly scratchBytes: number;
  /** Of `weightBytes`: read from files of packed matrices. */
  readonly fileBytes: number;
  /** Why such a file was not read or written; empty without a reason. */
  readonly notice: string;
}

/**
 * Connections of this host's leader, its local rank 0, to the leaders of the other hosts: pairwise, over TCP, each frame authenticated.
 * Lives as long as an epoch and serves runners one after another, the same number on every host.
 */
export interface Mesh {
  /** Port that it listens on, until it has connected. */
  readonly port: number;
  /**
   * Connects to the leaders of all other hosts, who do the same. Strangers and callers without the key are dropped.
   * @throws NdsError `ERR_PEER_LOST` naming the nodes that did not come in time, `ERR_CLOSED` after `close`.
   */
  connect(options: MeshConnectOptions): Promise<void>;
  /** Ends `connect`, and every collective that waits for another host. The connections close with the last runner that uses them. */
  close(): void;
}

export interface MeshConnectOptions {
  readonly nodeRank: number;
  /** Makes the keys of a connection those of one epoch. */
  readonly epoch: number;
  /** 16 bytes that the leaders of this epoch share. */
  readonly key: Uint8Array;
  /** `[numNodes]` numeric address and port of each leader; this node's are not used. */
  readonly addresses: readonly string[];
  readonly ports: readonly number[];
  readonly timeoutMs: number;
}

/** Place of a rank's host in a gang of several; node n holds ranks n · localWorldSize and on. */
export interface MeshPlace {
  readonly nodeRank: number;
  readonly numNodes: number;
  /** Connected, on local rank 0; null on the others. */
  readonly handle: Mesh | null;
}

export interface RunnerOptions {
  readonly rank: number;
  readonly worldSize: number;
  /** Inherited descriptor of the memory shared by this host's ranks; not read where there is one. */
  readonly shmFd: number;
  /** Index and number of this host's ranks: threads are pinned when all ranks' threads fill the allowed cores. */
  readonly localRank: number;
  readonly localWorldSize: number;
  /** Set in a gang of several hosts. */
  readonly mesh?: MeshPlace | undefined;
  readonly numThreads: number;
  /** Inherited descriptor of the memory that tells the launcher what this rank is doing; absent or -1 = none. */
  readonly stateFd?: number;
  /** CUDA device, and whether sums have one order whatever the batch and the ranks; without it, the CPU computes. */
  readonly cuda?: { readonly deviceIndex: number; readonly deterministic: boolean } | undefined;
  /** Max wait for other ranks before the first step, and within a step. */
  readonly startupTimeoutMs: number;
  readonly stepTimeoutMs: number;
  /** Whether results include operator timings. */
  readonly trace?: boolean;
}

/** A rank's native executor: one thread that loads a model and runs plans in order. */
export interface Runner {
  /** Maps, slices and packs the weights, and allocates KV and scratch. At most one model at a time, perhaps with a draft. */
  load(spec: ProgramSpec, draft?: DraftSpec, rule?: DraftRule): Promise<LoadReport>;
  /** Bytes of weights that the load has packed so far, counted while it runs; those used in place are not counted. */
  loadedBytes(): number;
  /** Queues one step. The bytes are copied; the promise settles when the step is done. */
  submit(step: number, directory: Int32Array, bytes: Uint8Array): Promise<{ directory: Int32Array; bytes: Uint8Array }>;
  /** Ends waiting collectives, drains the queue, frees everything. Queued steps reject with `ERR_CLOSED`. */
  close(): Promise<void>;
}

export interface CpuInfo {
  /**
   * Instruction sets of this processor and build, best first: `avx512_bf16`, `avx512_vnni`, `avx512`, `avx_vnni`, `avx2` or `neon_bf16`,
   * `neon`, then `portable`.
   * Those that multiply bf16 in hardware end in `_bf16`.
   */
  readonly isas: readonly string[];
  /** The one in use (`NDS_ISA` forces one). */
  readonly isa: string;
  readonly model: string;
  readonly allowedCores: number;
}

/** A device, as described by CUDA. */
export interface CudaDevice {
  readonly name: string;
  readonly pciBusId: string;
  readonly computeCapability: string;
  readonly numMultiprocessors: number;
  readonly totalBytes: number;
  /** Null unless requested. */
  readonly freeBytes: number | null;
}

/** A library that the CUDA backend opens at run time. */
export interface CudaLibrary {
  readonly name: string;
  readonly path: string | null;
  readonly version: string | null;
  readonly reason: string | null;
}

export interface CudaInfo {
  /** Path at which nds_cuda.so is expected. */
  readonly path: string;
  /** Why CUDA cannot be used; null if it can. */
  readonly reason: string | null;
  readonly isEmulated: boolean;
  readonly driverVersion: string;
  readonly runtimeVersion: string;
  readonly devices: readonly CudaDevice[];
  readonly libraries: readonly CudaLibrary[];
}

export interface Addon {
  readonly version: string;
  /** Version of the layout of packed matrices, the same for every instruction set. */
  readonly packedLayout: number;
  cpuInfo(): CpuInfo;
  /** Opens the CUDA backend. Measures free memory of `device`, modulo their number, which creates a context on it. */
  cudaInfo(device?: number): CudaInfo;
  /**
   * Kills this process when its parent is gone: parent-death signal, and a native thread that watches `watchFd`
   * (-1 = none) for end-of-file. Exits at once when the parent is no longer `parentPid`.
   */
  guardProcess(parentPid: number, watchFd: number): void;
  /**
   * Listens for the leaders of other hosts on a free port of one local address.
   * @throws NdsError `ERR_USAGE` for an address of all interfaces, `ERR_SYSTEM` for one that this host does not have.
   */
  listenMesh(localAddr: string): Mesh;
  createRunner(options: RunnerOptions): Runner;
  /** Single operators on plain arrays, on a named instruction set. For tests and benchmarks only. */
  readonly testing: Record<string, (...args: never[]) => unknown>;
}

/** Build of the CUDA backend. */
export interface CudaBuild {
  readonly mode: 'nvcc' | 'emulated' | 'off';
  readonly compiler: string;
  /** Compute capabilities without the dot; empty for the emulated device. */
  readonly archs: readonly string[];
  /** Hash of all inputs; empty where nothing was built. */
  readonly stamp: string;
  /** Why the build failed; null if it succeeded or was not requested. */
  readonly failure: string | null;
}

/** Paths of the addon and its CUDA backend; `cudaBuild` = that backend's build, null if unknown. */
export function addonFiles(): { readonly addon: string; readonly cuda: string; readonly cudaBuild: CudaBuild | null } {
  return nativeFiles();
}

/**
 * Builds what is missing: the core where no prebuilt one fits, and the CUDA backend where nvcc is, or else fails when `cuda` is set.
 * @throws NdsError `ERR_NATIVE`.
 */
export function buildAddon(options: { readonly cuda: boolean }): ReturnType<typeof addonFiles> & { readonly isPrebuilt: boolean } {
  try {
    return buildMissing(options);
  } catch (error) {
    throw toNdsError(error, 'ERR_NATIVE');
  }
}

/** The addon, built on first use if missing. @throws NdsError `ERR_NATIVE`. */
export function native(): Addon {
  try {
    return loadAddon() as Addon;
  } catch (error) {
    throw toNdsError(error, 'ERR_NATIVE');
  }
}
