/**
 * The layers of tensor parallelism (Megatron-LM, arXiv:1909.08053): how a matrix product is shared between ranks.
 *
 * Y = X Wᵀ is split in two ways. Column-parallel: each rank holds rows of W, needs all of X and computes columns of Y.
 * Row-parallel: each rank holds columns of W, needs only those columns of X and computes a partial sum of all of Y.
 * The first leaves Y sharded and the second takes X sharded, so a pair needs one all-reduce: Q, K, V, then O; gate, up,
 * then down. The operators between (attention, SiLU) work on whole heads or single columns, without communication. That
 * makes two all-reduces per layer.
 */
import { inputChunkEdges, type Partition, type Range } from './partition.ts';
import type { LinearWeight, Program, TableWeight, Value, VectorWeight } from './program.ts';
import type { LinearTensors, Tensor } from './weights.ts';

/** Output columns `range` of one projection. */
export interface ColumnPiece {
  readonly linear: LinearTensors;
  readonly range: Range;
}

/**
 * Output columns of one or more projections of the same input, as one matrix product. No communication: the next
 * operators need only this rank's columns.
 */
export class ColumnParallelLinear {
  /** First column of each piece in the output; each begins on a whole panel. */
  readonly offsets: readonly number[];
  readonly #program: Program;
  readonly #weight: LinearWeight;
  readonly #bias: VectorWeight | null;

  constructor(program: Program, pieces: readonly ColumnPiece[], quantization = program.quantization) {
    const edges = inputChunkEdges(pieces[0]?.linear.weight.numCols ?? 0);
    const parts = pieces.map(({ linear, range }) => ({ tensor: linear.weight, rows: range }));
    const biases = pieces.flatMap(({ linear: { bias }, range }) => (bias === null ? [] : [{ tensor: bias, cols: range }]));
    this.#program = program;
    this.#weight = program.matrix(parts, { edges, first: 0, total: edges.length - 1, all: null }, quantization);
    this.#bias = biases.length > 0 ? program.vector(...biases) : null;
    this.offsets = this.#weight.offsets;
  }

  /** x `[rows, k]` whole → this rank's columns. */
  forward(x: Value): Value {
    return this.#program.linear(x, this.#weight, this.#bias);
  }
}

/**
 * A product over this rank's input columns, the output of a column-parallel layer. An all-reduce adds the partial sums
 * of all ranks. The bias is added after it: before it, it would count once per rank.
 */
export class RowParallelLinear {
  readonly #program: Program;
  readonly #weight: LinearWeight;
  readonly #bias: VectorWeight | null;

  /** @param all - `[numChunks + 1]` edges of the chunks, whose sums join by one tree for any number of ranks */
  constructor(program: Program, linear: LinearTensors, cols: Range, all: readonly number[], { heads, numChunks }: Partition) {
    const edges = all.slice(heads[0], heads[1] + 1).map((edge) => edge - cols[0]);
    this.#program = program;
    this.#weight = program.matrix([{ tensor: linear.weight, cols }], { edges, first: heads[0], total: numChunks, all });
    this.#bias = linear.bias === null ? null : program.vector({ tensor: linear.bias });
  }

  /** x: this rank's columns → the complete product, the same on every rank. */
  forward(x: Value): Value {
    return this.#program.allReduce(this.#program.partialLinear(x, this.#weight), this.#bias);
  }
}

/** The embedding, sharded by rows: a token's row comes from the one rank that holds it. */
export class VocabParallelEmbedding {
  readonly #program: Program;
  readonly #table: TableWeight;

  constructor(program: Program, embedding: Tensor, { vocabRows }: Partition) {
    this.#program = program;
    this.#table = program.table({ tensor: embedding, rows: vocabRows }, vocabRows[0]);
  }

  /** `[numTokens, hiddenSize]`, the same on every rank. */
  forward(): Value {
    return this.#program.embedding(this.#table);
  }
}

/**
 * The LM head, sharded by vocabulary rows as the embedding. Logits are not gathered: a sampled token is an arg-max, so
 * ranks exchange two numbers each, the best value and its token id. Beside int4 layers it is int8: an error of a logit is
 * no later layer's to even out, and it is a small part of a large model.
 */
export class ParallelLMHead {
  readonly #program: Program;
  readonly #projection: ColumnParallelLinear;
  readonly #vocabRows: Range;

  constructor(program: Program, head: Tensor, { vocabRows }: Partition) {
    this.#program = program;
    const quantization = program.quantization === 'int4' ? 'int8' : program.quantization;
    this.#projection = new ColumnParallelLinear(program, [{ linear: { weight: head, bias: null }, range: vocabRows }], quantization);
    this.#vocabRows = vocabRows;
  }

  /** hidden `[numLogitRows, hiddenSize]` → a token for every row. */
  sample(hidden: Value): void {
    this.#program.sample(this.#projection.forward(hidden), this.#vocabRows);
  }
}
