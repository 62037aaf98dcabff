/** The operators that a model is written in: recorded, not run. Each takes and returns handles. */
import { NdsError } from '../../protocol/errors.ts';
import type { WeightQuantization } from '../../protocol/messages.ts';
import type {
  Fp8Scales,
  HeadLayout,
  OpGroup,
  OpSpec,
  ProgramSpec,
  RopeSpec,
  RowSpace,
  StoredIntegers,
  TensorSlice,
  ValueId,
  ValueSpec,
  WeightId,
  WeightSpec,
} from '../program-spec.ts';
import { type CodesPlan, type Fp8Plan, planCodes, planFp8 } from './kept-codes.ts';
import { padToPanel, type Range } from './partition.ts';
import type { TensorIntegers } from './stored-integers.ts';
import { packedDtype, type TensorScales } from './stored-types.ts';
import type { Tensor } from './weights.ts';

/** Handle of a matrix that the program computes: one row per token, or per row of the step's logits. */
export interface Value {
  readonly id: ValueId;
  readonly rows: RowSpace;
  readonly width: number;
  /** `fp32`, or `activation`, the dtype that enters matrix products. */
  readonly type: 'fp32' | 'activation';
  /** Whether it is a partial sum, which `allReduce` has yet to complete. */
  readonly partial: boolean;
}

/** Handle of a vector: `width` counts whole panels. */
export interface VectorWeight {
  readonly id: WeightId;
  readonly width: number;
}

/** Handle of an embedding `[rows, width]`. */
export interface TableWeight {
  readonly id: WeightId;
  readonly width: number;
}

/** Handle of a matrix `[width, k]`. */
export interface LinearWeight {
  readonly id: WeightId;
  readonly k: number;
  readonly width: number;
  /** First output column of each piece. */
  readonly offsets: readonly number[];
}

/** Rows and columns of a tensor. Default all. */
export interface TensorPart {
  readonly tensor: Tensor;
  readonly rows?: Range;
  readonly cols?: Range;
}

/** Chunks in which a matrix's columns are summed: local edges, and their place in the whole model. */
export interface Chunks {
  readonly edges: readonly number[];
  readonly first: number;
  readonly total: number;
  /** `[total + 1]` edges of all ranks' chunks, where ranks divide the columns; `null` where each has all of them. */
  readonly all: readonly number[] | null;
}

/** A matrix that is stored as integers or 8-bit floats and was not kept so. */
export interface ExpandedMatrix {
  readonly name: string;
  /** The end of a sentence about it. */
  readonly reason: string;
}

/** What became of the matrices that are stored as integers or 8-bit floats. */
export interface QuantizedMatrices {
  /** Matrices of the checkpoint that stay as they are, by format. */
  readonly numKept: Readonly<Record<(CodesPlan | Fp8Plan)['format'], number>>;
  /** Those that become bfloat16, as no format holds them. */
  readonly expanded: readonly ExpandedMatrix[];
}

/** The fields of a program that are not recorded. */
export type ProgramFrame = Omit<ProgramSpec, 'files' | 'weights' | 'values' | 'ops' | 'ropes'>;

/**
 * Records a model operator by operator and checks shapes as it goes.
 * Every method throws NdsError `ERR_INTERNAL` when shapes or types do not match: a bug in the model's code.
 */
export class Program {
  /** Of the matrices of layers. */
  readonly quantization: WeightQuantization;
  readonly #numKept = { int8: 0, int8_zero: 0, int4: 0, int4_zero: 0, fp8: 0 };
  readonly #expanded: ExpandedMatrix[] = [];
  readonly #frame: ProgramFrame;
  readonly #files = new Map<string, number>();
  readonly #weights: WeightSpec[] = [];
  readonly #values: ValueSpec[] = [];
  readonly #ops: OpSpec[] = [];
  readonly #ropes: RopeSpec[] = [];
  #group: OpGroup = { name: 'embedding', layer: null };

  constructor(frame: ProgramFrame, quantization: WeightQuantization) {
    this.#frame = frame;
    this.quantization = quantization;
  }

  /** Group of the operators recorded until the next call. */
  group(name: string, layer: number | null): void {
    this.#group = { name, layer };
  }

  /** A norm's weight or a bias; several parts are concatenated, each padded to whole panels. */
  vector(...parts: readonly TensorPart[]): VectorWeight {
    const pieces = parts.map((part) => this.#slice(part));
    const id = this.#weights.push({ kind: 'vector', pieces }) - 1;
    return { id, width: padToPanel(stack(pieces.map((piece) => piece.colEnd - piece.colBegin)).width) };
  }

  /** Rows of an embedding; the first is the row of token `firstRow`. */
  table(part: TensorPart, firstRow: number): TableWeight {
    const slice = this.#slice(part);
    return { id: this.#weights.push({ kind: 'table', slice, dtype: slice.dtype, firstRow }) - 1, width: slice.colEnd - slice.colBegin };
  }

  /** A matrix for `linear`; several parts over the same columns are stacked, each from a whole panel of outputs on. */
  matrix(parts: readonly TensorPart[], chunks: Chunks, quantization = this.quantization): LinearWeight {
    const pieces = parts.map((part) => this.#slice(part));
    const k = chunks.edges.at(-1) ?? 0;
    for (const piece of pieces) expect(piece.colEnd - piece.colBegin === k, `${k} columns`, piece.name);
    const kept = quantization === 'none' ? this.#keep(parts, pieces, chunks) : null;
    const format = quantization === 'none' || quantization === 'expand' ? packedDtype(pieces) : quantization;
    const sum = { chunkEdges: chunks.edges, firstChunk: chunks.first, numChunks: chunks.total };
    const spec = { kind: 'linear', pieces, format, codes: null, ...sum, ...kept } as const;
    return { id: this.#weights.push(spec) - 1, k, ...stack(pieces.map((piece) => piece.rowEnd - piece.rowBegin)) };
  }

  /** A rotary embedding, for `ropeAndStore`. */
  rope(spec: RopeSpec): number {
    return this.#ropes.push(spec) - 1;
  }

  /** `[numTokens, hiddenSize]` embeddings of the step's tokens, each from the rank that holds its row. */
  embedding(table: TableWeight): Value {
    const out = this.#value('tokens', table.width, 'fp32');
    this.#record({ op: 'embedding', table: table.id, out: out.id });
    return out;
  }

  /** x / rms(x) · weight, as an activation. */
  rmsNorm(x: Value, weight: VectorWeight, eps: number): Value {
    expect(x.type === 'fp32' && padToPanel(x.width) === weight.width, 'an fp32 input as wide as its weight', 'rmsNorm');
    const out = this.#value(x.rows, x.width, 'activation');
    this.#record({ op: 'rmsNorm', x: this.#complete(x), weight: weight.id, eps, out: out.id });
    return out;
  }

  /** x Wᵀ + bias. */
  linear(x: Value, weight: LinearWeight, bias: VectorWeight | null): Value {
    if (bias !== null) expect(bias.width === padToPanel(weight.width), 'a bias as wide as the output', 'linear');
    return this.#linear(x, weight, bias, false);
  }

  /** x Wᵀ over this rank's columns: a partial sum, which `allReduce` completes. */
  partialLinear(x: Value, weight: LinearWeight): Value {
    return this.#linear(x, weight, null, true);
  }

  /** The sum of all ranks' partial sums, by a tree independent of the number of ranks, then + bias. */
  allReduce(x: Value, bias: VectorWeight | null): Value {
    expect(x.partial, 'partial sums', 'allReduce');
    if (bias !== null) expect(bias.width === padToPanel(x.width), 'a bias as wide as the sum', 'allReduce');
    const out = this.#value(x.rows, x.width, 'fp32');
    this.#record({ op: 'allReduce', x: x.id, bias: bias?.id ?? null, out: out.id });
    return out;
  }

  /** RMS norm of each query head and key head, in place. */
  headNorm(qkv: Value, heads: HeadLayout, qWeight: VectorWeight, kWeight: VectorWeight, eps: number): void {
    this.#expectHeads(qkv, heads, 'headNorm');
    expect(qWeight.width === padToPanel(heads.headDim) && kWeight.width === qWeight.width, 'weights as wide as a head', 'headNorm');
    this.#record({ op: 'headNorm', qkv: this.#complete(qkv), heads, qWeight: qWeight.id, kWeight: kWeight.id, eps });
  }

  /** Rotates q and k by their positions, writes k and v to the KV cache of `layer`, and returns q. */
  ropeAndStore(qkv: Value, heads: HeadLayout, rope: number, layer: number): Value {
    this.#expectHeads(qkv, heads, 'ropeAndStore');
    expect(this.#ropes[rope]?.invFreq.length === heads.headDim / 2, 'a frequency for each pair of dimensions', 'ropeAndStore');
    const out = this.#value('tokens', heads.numHeads * heads.headDim, 'activation');
    this.#record({ op: 'ropeAndStore', qkv: this.#complete(qkv), heads, rope, layer, out: out.id });
    return out;
  }

  /** softmax(q kᵀ / √headDim) v over cached and new tokens up to each query's; `slidingWindow` 0 = all. */
  pagedAttention(q: Value, heads: HeadLayout, layer: number, slidingWindow: number): Value {
    expect(q.type === 'activation' && q.width === heads.numHeads * heads.headDim, 'the queries of these heads', 'pagedAttention');
    const out = this.#value('tokens', q.width, 'activation');
    this.#record({ op: 'pagedAttention', q: q.id, heads, layer, scale: heads.headDim ** -0.5, slidingWindow, out: out.id });
    return out;
  }

  /** silu(gate) · up: gate is columns `[0, width)`, up is `[upOffset, upOffset + width)`. */
  siluMul(gateUp: Value, width: number, upOffset: number): Value {
    expect(gateUp.type === 'fp32' && width <= upOffset && upOffset + width <= gateUp.width, 'gate and up side by side', 'siluMul');
    const out = this.#value(gateUp.rows, width, 'activation');
    this.#record({ op: 'siluMul', gateUp: this.#complete(gateUp), upOffset, out: out.id });
    return out;
  }

  /** a + b. */
  add(a: Value, b: Value): Value {
    expect(a.type === 'fp32' && b.type === 'fp32' && a.width === b.width && a.rows === b.rows, 'two fp32 inputs of one shape', 'add');
    const out = this.#value(a.rows, a.width, 'fp32');
    this.#record({ op: 'add', a: this.#complete(a), b: this.#complete(b), out: out.id });
    return out;
  }

  /** Returns x / rms(x) · weight, in fp32, of the rows whose hidden states the plan asks for. */
  hiddenStates(x: Value, weight: VectorWeight, eps: number): void {
    expect(
      x.rows === 'tokens' && x.type === 'fp32' && padToPanel(x.width) === weight.width,
      'fp32 tokens as wide as a weight',
      'hiddenStates',
    );
    this.#record({ op: 'hiddenStates', x: this.#complete(x), weight: weight.id, eps });
  }

  /** `[numLogitRows, width]` the rows of x for which the step needs logits. */
  gatherRows(x: Value): Value {
    expect(x.rows === 'tokens', 'a row per token', 'gatherRows');
    const out = this.#value('logitRows', x.width, x.type);
    this.#record({ op: 'gatherRows', x: this.#complete(x), out: out.id });
    return out;
  }

  /** Samples a token for each row from all ranks' logits. This rank has those of tokens `[begin, end)`. */
  sample(logits: Value, [begin, end]: Range): void {
    expect(logits.rows === 'logitRows' && logits.type === 'fp32' && logits.width === end - begin, 'a logit for each token', 'sample');
    this.#record({ op: 'sample', logits: this.#complete(logits), firstTokenId: begin, numTokenIds: end - begin });
  }

  /** What became of the matrices recorded so far that are stored as integers or 8-bit floats. */
  get integers(): QuantizedMatrices {
    return { numKept: { ...this.#numKept }, expanded: [...this.#expanded] };
  }

  /** The recorded program. */
  build(): ProgramSpec {
    return {
      ...this.#frame,
      files: [...this.#files.keys()],
      weights: [...this.#weights],
      values: [...this.#values],
      ops: [...this.#ops],
      ropes: [...this.#ropes],
    };
  }

  #record(op: OpSpec): void {
    this.#ops.push({ ...op, group: this.#group });
  }

  #linear(x: Value, weight: LinearWeight, bias: VectorWeight | null, partial: boolean): Value {
    expect(x.type === 'activation' && x.width === weight.k, `an activation of width ${weight.k}`, 'linear');
    const out = this.#value(x.rows, weight.width, 'fp32', partial);
    this.#record({ op: 'linear', x: x.id, weight: weight.id, bias: bias?.id ?? null, partial, out: out.id });
    return out;
  }

  #value(rows: RowSpace, width: number, type: Value['type'], partial = false): Value {
    return { id: this.#values.push({ rows, width, type }) - 1, rows, width, type, partial };
  }

  #complete(x: Value): ValueId {
    expect(!x.partial, 'a complete sum', `value ${x.id}`);
    return x.id;
  }

  #expectHeads(qkv: Value, heads: HeadLayout, op: string): void {
    const end = heads.vOffset + heads.numKvHeads * heads.headDim;
    expect(qkv.type === 'fp32' && qkv.rows === 'tokens' && qkv.width === end, 'q, k and v of these heads', op);
  }

  /** How a matrix keeps its integers or 8-bit floats, if all pieces have some; else it is expanded, which is noted. */
  #keep(parts: readonly TensorPart[], pieces: readonly TensorSlice[], { edges, first, all }: Chunks): CodesPlan | Fp8Plan | null {
    const stored = pieces.filter(({ integers, fp8 }) => integers !== null || fp8 !== null);
    if (stored.length === 0) return null;
    const columns = { edges, first, all, begin: pieces[0]?.colBegin ?? 0 };
    const tensors = parts.map(({ tensor }) => tensor);
    const plan = tensors.some(({ fp8 }) => fp8 !== null)
      ? planFp8(
          tensors.map(({ fp8 }) => fp8),
          columns,
        )
      : planCodes(
          tensors.map(({ integers }) => integers),
          columns,
        );
    if (!('reason' in plan)) {
      this.#numKept[plan.format] += stored.length;
      return plan;
    }
    for (const { name } of stored) this.#expanded.push({ name, reason: plan.reason });
    return null;
  }

  #slice({ tensor, rows = [0, tensor.numRows], cols = [0, tensor.numCols] }: TensorPart): TensorSlice {
    const { name, path, byteOffset, dtype, numCols, fp8, integers } = tensor;
    expect(0 <= rows[0] && rows[0] <= rows[1] && rows[1] <= tensor.numRows, `rows of ${tensor.numRows}`, name);
    expect(0 <= cols[0] && cols[0] <= cols[1] && cols[1] <= numCols, `columns of ${numCols}`, name);
    const file = this.#file(path);
    const range = { rowBegin: rows[0], rowEnd: rows[1], colBegin: cols[0], colEnd: cols[1] };
    return {
      name,
      file,
      byteOffset,
      dtype,
      fp8: fp8 && this.#scales(fp8),
      integers: integers && this.#integers(integers),
      numCols,
      ...range,
    };
  }

  #scales({ path, ...scales }: TensorScales): Fp8Scales {
    return { file: this.#file(path), ...scales };
  }

  #integers({ scales, zeros, groupIndex, groups: _, ...integers }: TensorIntegers): StoredIntegers {
    const part = <P extends { readonly path: string }>({ path, ...place }: P) => ({ file: this.#file(path), ...place });
    return { ...integers, scales: part(scales), zeros: zeros && part(zeros), groupIndex: groupIndex && part(groupIndex) };
  }

  #file(path: string): number {
    const file = this.#files.get(path) ?? this.#files.size;
    this.#files.set(path, file);
    return file;
  }
}

/** Offsets of concatenated pieces, each from a whole panel on. */
function stack(sizes: readonly number[]): { width: number; offsets: number[] } {
  const offsets: number[] = [];
  let width = 0;
  for (const size of sizes) {
    offsets.push(padToPanel(width));
    width = padToPanel(width) + size;
  }
  return { width, offsets };
}

function expect(condition: boolean, expected: string, what: string): void {
  if (!condition) throw new NdsError('ERR_INTERNAL', `Expected ${expected} for ${what} but received something else`);
}
