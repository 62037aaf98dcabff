/**
 * A model as native runs it: weights to load, values to hold, operators to run. native/core/program/program.h is its
 * twin. Types only.
 */
import type { KvCacheDtype } from '../protocol/messages.ts';

/** Element type of a stored tensor, or of activations. */
export type DType = 'float32' | 'bfloat16' | 'float16';

/**
 * How a matrix is kept: in a stored type, or quantized, in groups of at most 128 inputs, int4 with a multiplier for each 32,
 * or as a checkpoint's integers are. With `int8_zero` and `int4_zero` each group has a zero point. `fp8`: the float8_e4m3 of
 * a checkpoint and its scales, as they are.
 */
export type WeightFormat = DType | 'int8' | 'int8_zero' | 'int4' | 'int4_zero' | 'fp8';

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

/** How the integers of a checkpoint stay as they are: packed without rounding, each scale held exactly. */
export interface KeptCodes {
  /** Positions that share a scale: 32, or for 8 bits 64 or 128 too. */
  readonly group: number;
  /** Type of the scales, which are kept times 256. */
  readonly scaleDtype: 'float16' | 'float32';
  /** Column of the slices at each position, -1 = none, for groups that do not end where a chunk's do; `null` = in order. */
  readonly columns: readonly number[] | null;
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
   * converted to `format`: their own type, float32, or, on the CPU, a quantized one. `codes` is set where the integers of
   * all pieces stay as they are; `chunkEdges` count positions where it has columns. With `fp8` all pieces have such
   * values, whose scales change at every fourth column of a chunk at most.
   * k is summed in chunks: `chunkEdges` `[numLocalChunks + 1]` counts from this rank's first column; the chunks are
   * `firstChunk …` of `numChunks` in the whole model, and partial sums join by the fixed binary tree over those.
   */
  | {
      readonly kind: 'linear';
      readonly pieces: readonly TensorSlice[];
      readonly format: WeightFormat;
      readonly codes: KeptCodes | null;
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
