/**
 * The layers of tensor parallelism (Megatron-LM, arXiv:1909.08053): how a matrix product is shared between ranks.
 *
 * Y = X Wᵀ can be cut in two ways. By output columns: each rank holds some rows of W, needs all of X and computes some columns of Y.
 * By input columns: each rank holds some columns of W, needs only those columns of X, and computes a term of a sum for all of Y.
 * The first needs X whole and leaves Y scattered; the second takes X scattered and needs a sum at the end. So a pair, first
 * one then the other, meets once: Q, K, V and then O; gate, up and then down. What lies between works on whole heads or single
 * columns (attention, SiLU) and does not care that the other ranks hold the rest. That is two all-reduces a layer.
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
 * Some output columns of one or more projections of the same input, as one matrix product. No communication:
 * the next operators need only the columns that this rank has.
 */
export class ColumnParallelLinear {
  /** First column of each piece in the output; each begins on a whole panel. */
  readonly offsets: readonly number[];
  readonly #program: Program;
  readonly #weight: LinearWeight;
  readonly #bias: VectorWeight | null;

  constructor(program: Program, pieces: readonly ColumnPiece[]) {
    const edges = inputChunkEdges(pieces[0]?.linear.weight.numCols ?? 0);
    const parts = pieces.map(({ linear, range }) => ({ tensor: linear.weight, rows: range }));
    const biases = pieces.flatMap(({ linear: { bias }, range }) => (bias === null ? [] : [{ tensor: bias, cols: range }]));
    this.#program = program;
    this.#weight = program.matrix(parts, { edges, first: 0, total: edges.length - 1 });
    this.#bias = biases.length > 0 ? program.vector(...biases) : null;
    this.offsets = this.#weight.offsets;
  }

  /** x `[rows, k]` whole → this rank's columns. */
  forward(x: Value): Value {
    return this.#program.linear(x, this.#weight, this.#bias);
  }
}

/**
 * A product over this rank's input columns: what a column-parallel layer left on each rank is what this one takes. Ends in the
 * all-reduce, which adds the ranks' terms. The bias is added once, after it; on every rank before it, it would count N times.
 */
export class RowParallelLinear {
  readonly #program: Program;
  readonly #weight: LinearWeight;
  readonly #bias: VectorWeight | null;

  /** `edges` `[numLocalChunks + 1]` divide `cols` into the chunks whose sums join by one tree, wherever ranks begin and end. */
  constructor(program: Program, linear: LinearTensors, cols: Range, edges: readonly number[], { heads, numChunks }: Partition) {
    this.#program = program;
    this.#weight = program.matrix([{ tensor: linear.weight, cols }], { edges, first: heads[0], total: numChunks });
    this.#bias = linear.bias === null ? null : program.vector({ tensor: linear.bias });
  }

  /** x: this rank's columns → the whole product, the same on every rank. */
  forward(x: Value): Value {
    return this.#program.allReduce(this.#program.partialLinear(x, this.#weight), this.#bias);
  }
}

/** The embedding with its rows shared out: a token's row comes from the one rank that has it. */
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
 * The LM head with its rows, one per token of the vocabulary, shared out as the embedding's. The logits stay where they are:
 * a sampled token is an arg-max, so two numbers per rank, its best value and that token's id, are all that ranks exchange.
 */
export class ParallelLMHead {
  readonly #program: Program;
  readonly #projection: ColumnParallelLinear;
  readonly #vocabRows: Range;

  constructor(program: Program, head: Tensor, { vocabRows }: Partition) {
    this.#program = program;
    this.#projection = new ColumnParallelLinear(program, [{ linear: { weight: head, bias: null }, range: vocabRows }]);
    this.#vocabRows = vocabRows;
  }

  /** hidden `[numLogitRows, hiddenSize]` → a token for every row. */
  sample(hidden: Value): void {
    this.#program.sample(this.#projection.forward(hidden), this.#vocabRows);
  }
}
