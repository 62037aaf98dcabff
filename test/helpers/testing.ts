/** Typed access to the addon's operators on plain arrays, and what their tests share. */
import type { KvCacheDtype } from '../../protocol/messages.ts';
import { native } from '../../rank/native.ts';
import { normal } from '../references/linear.ts';
import type { Edits } from '../references/process-logits.ts';

export type ActivationType = 'float32' | 'bfloat16';

interface Run {
  readonly isa: string;
  readonly numThreads: number;
}

/** Matrices are row-major. Returned activations include their padding: rows are a multiple of 32 wide. */
export interface TestingOps {
  rmsNorm(
    options: Run & { x: Float32Array; rows: number; width: number; weight: Float32Array; eps: number; outDtype: ActivationType },
  ): Float32Array;
  headNorm(
    options: Run & {
      qkv: Float32Array;
      rows: number;
      width: number;
      offset: number;
      numHeads: number;
      headDim: number;
      weight: Float32Array;
      eps: number;
    },
  ): Float32Array;
  siluMul(options: Run & { gateUp: Float32Array; rows: number; width: number; outDtype: ActivationType }): Float32Array;
  add(options: Run & { a: Float32Array; b: Float32Array; rows: number; width: number; inPlace: boolean }): Float32Array;
  embedding(
    options: Run & {
      tokenIds: Int32Array;
      table: Float32Array;
      tableDtype: ActivationType | 'float16';
      firstRow: number;
      numRows: number;
      width: number;
    },
  ): Float32Array;
  join(options: {
    isa: string;
    inputs: Float32Array;
    count: number;
    merges: Int32Array;
    bias: Float32Array | null;
    width: number;
    begin: number;
    end: number;
  }): Float32Array;
  map(options: { isa: string; function: 'exp' | 'log' | 'gumbel'; x: Float32Array }): Float32Array;
  philox(options: { isa: string; counter: Int32Array; key: bigint }): Uint32Array;
  ropeTable(options: Run & { positions: Int32Array; invFreq: Float32Array; halfDim: number; scale: number }): {
    cos: Float32Array;
    sin: Float32Array;
  };
  ropeAndStore(options: Run & RopeAndStore): StoredKv;
  pagedAttention(options: Run & PagedAttention): Float32Array;
  sample(options: { isa: string } & Sample): { ids: Int32Array; values: Float32Array };
  processLogits(options: ProcessLogits): Float32Array;
  logProbabilities(options: { isa: string; logits: Float32Array; numDrawable: number; token: number; numLikeliest: number }): {
    /** `token`, then the likeliest tokens. */
    ids: Int32Array;
    logprobs: Float32Array;
    rank: number;
  };
}

/** A cache of `numBlocks` blocks of `blockSize` tokens. */
interface Cache {
  readonly dtype: ActivationType;
  /** Of K and V: `dtype`, bfloat16 beside float32 activations, or int8 with a scale per token and KV head. */
  readonly kvDtype: KvCacheDtype;
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** Rotated q, and the cache as `[numSlots, numKvHeads, padded headDim]`. */
export interface StoredKv {
  readonly q: Float32Array;
  /** Integers, for an int8 cache. */
  readonly k: Float32Array;
  readonly v: Float32Array;
  /** `[numSlots, numKvHeads]`, for an int8 cache. */
  readonly kScales?: Float32Array;
  readonly vScales?: Float32Array;
}

export interface RopeAndStore extends Cache {
  readonly qkv: Float32Array;
  readonly rows: number;
  readonly width: number;
  readonly numHeads: number;
  readonly qOffset: number;
  readonly kOffset: number;
  readonly vOffset: number;
  readonly cos: Float32Array;
  readonly sin: Float32Array;
  /** `[rows]` block · blockSize + offset in the block. */
  readonly kvSlots: Int32Array;
}

export interface PagedAttention extends Cache {
  /** `[tokens, numHeads * headDim]` */
  readonly q: Float32Array;
  /** `[sum of contextLens, numKvHeads * headDim]`, sequence by sequence. */
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly cuQueryLens: Int32Array;
  readonly contextLens: Int32Array;
  readonly blockTables: Int32Array;
  readonly cuBlocks: Int32Array;
  readonly numHeads: number;
  readonly firstHead: number;
  readonly groupSize: number;
  readonly firstKvHead: number;
  readonly scale: number;
  readonly slidingWindow: number;
  /** Value of cache cells outside every context. */
  readonly stale: number;
}

export interface Sample {
  readonly logits: Float32Array;
  readonly firstId: number;
  readonly temperature: number;
  readonly topP: number;
  readonly minP: number;
  readonly topK: number;
  readonly seed: bigint;
  /** Position of the first draw; each further draw adds 1. */
  readonly position: number;
  readonly sampleIndex: number;
  /** Default: stream and round of the target's own draws. */
  readonly stream?: number;
  readonly round?: number;
  readonly numDraws: number;
  readonly filtered: boolean;
  /** Threads that share a filtered row; default 1. */
  readonly numThreads?: number;
}

export interface ProcessLogits {
  /** Logits of ids from `firstId` on. */
  readonly logits: Float32Array;
  readonly firstId: number;
  readonly numOutput: number;
  /** Drafts that follow the history. */
  readonly drafts: Int32Array;
  readonly history: Int32Array;
  readonly numPromptTokens: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  readonly minTokens: number;
  readonly biasIds: Int32Array;
  readonly biasValues: Float32Array;
  readonly allowed: Int32Array;
  readonly stops: Int32Array;
  readonly badWords: readonly Int32Array[];
}

export const testing = native().testing as unknown as TestingOps;
export const isas = native().cpuInfo().isas;
export const activationTypes: readonly ActivationType[] = ['float32', 'bfloat16'];
export const cacheTypes: readonly Pick<Cache, 'dtype' | 'kvDtype'>[] = [
  { dtype: 'float32', kvDtype: 'float32' },
  { dtype: 'float32', kvDtype: 'bfloat16' },
  { dtype: 'float32', kvDtype: 'int8' },
  { dtype: 'bfloat16', kvDtype: 'bfloat16' },
  { dtype: 'bfloat16', kvDtype: 'int8' },
];

/** Native's edits of a row from `firstId` on, with the last `numDrafts` tokens of the output as drafts. */
export function edited(
  logits: Float32Array,
  edits: Edits,
  prompt: readonly number[],
  output: readonly number[],
  firstId = 0,
  end = logits.length,
  numDrafts = 0,
): Float32Array {
  const numKnown = output.length - numDrafts;
  return testing.processLogits({
    ...edits,
    logits: logits.slice(firstId, end),
    firstId,
    numOutput: output.length,
    history: Int32Array.from([...prompt, ...output.slice(0, numKnown)]),
    drafts: Int32Array.from(output.slice(numKnown)),
    numPromptTokens: prompt.length,
    biasIds: Int32Array.from(edits.logitBias, ([id]) => id),
    biasValues: Float32Array.from(edits.logitBias, ([, bias]) => bias),
    allowed: Int32Array.from(edits.allowedTokenIds ?? []),
    stops: Int32Array.from(edits.stopTokenIds),
    badWords: edits.badWords.map((word) => Int32Array.from(word)),
  });
}

/** Bitwise equality: -0 and 0 differ, and a NaN equals itself. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.byteLength), Buffer.from(b.buffer, b.byteOffset, b.byteLength)) === 0;
}

/** Element i, which must exist. */
export function at(values: ArrayLike<number>, i: number): number {
  const value = values[i];
  if (value === undefined) throw new RangeError(`Expected an index below ${values.length} but received ${i}`);
  return value;
}

/** Standard normal numbers times `scale`. */
export function normals(integers: (below: number) => number, count: number, scale = 1): Float32Array {
  return Float32Array.from({ length: count }, () => normal(integers) * scale);
}

const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

/** The nearest bfloat16, ties to even. */
export function toBf16(value: number): number {
  floats[0] = value;
  const bits = at(words, 0);
  words[0] = bits + 0x7fff + ((bits >>> 16) & 1);
  words[0] = at(words, 0) & 0xffff0000;
  return at(floats, 0);
}

export const rounders: Readonly<Record<ActivationType, (value: number) => number>> = { float32: Math.fround, bfloat16: toBf16 };

/** Largest |a - b|; NaN where only one is NaN, or where lengths differ. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    if (Object.is(a[i], b[i])) continue;
    most = Math.max(most, Math.abs(at(a, i) - at(b, i)));
  }
  return most;
}
