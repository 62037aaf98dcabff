/** Runs the programs of all ranks in float64, operator by operator, for one prompt and without paging. */
import { readFileSync } from 'node:fs';
import type { Fp8Scales, HeadLayout, KeptCodes, OpSpec, ProgramSpec, TensorSlice, ValueId, WeightId } from '../../rank/program-spec.ts';
import { readElement } from './elements.ts';
import { e4m3, toBf16 } from './fp8.ts';
import { integerParts, integerValue } from './integers.ts';
import { quantizeActivations } from './quantized.ts';

/** `[numRows][width]` */
type Matrix = Float64Array[];

const pad = (n: number) => Math.ceil(n / 32) * 32;

/** One rank: its weights, values, and the keys and values of every layer. */
export class ReferenceRank {
  readonly program: ProgramSpec;
  readonly values = new Map<ValueId, Matrix>();
  readonly #files: Buffer[];
  readonly #weights = new Map<WeightId, Matrix>();
  readonly #kv = new Map<number, { k: Matrix; v: Matrix }>();

  constructor(program: ProgramSpec) {
    this.program = program;
    this.#files = program.files.map((path) => readFileSync(path));
  }

  value(id: ValueId): Matrix {
    const value = this.values.get(id);
    if (value === undefined) throw new Error(`value ${id} is read before it is written`);
    return value;
  }

  /** Rows of all pieces, each padded to a multiple of 32 rows; a vector is one row of its padded pieces. */
  weight(id: WeightId): Matrix {
    let rows = this.#weights.get(id);
    if (rows !== undefined) return rows;
    const spec = this.program.weights[id];
    if (spec === undefined) throw new Error(`no weight ${id}`);
    if (spec.kind === 'vector') rows = [Float64Array.from(spec.pieces.flatMap((piece) => padded(this.#read(piece)[0] as Float64Array)))];
    else if (spec.kind === 'table') rows = this.#read(spec.slice);
    else rows = spec.pieces.flatMap((piece) => paddedRows(this.#read(piece, spec.codes !== null), piece.colEnd - piece.colBegin));
    this.#weights.set(id, rows);
    return rows;
  }

  /** @param isKept - whether integers stay as they are: (q − z) · scale, not rounded */
  #read(slice: TensorSlice, isKept = false): Matrix {
    const file = this.#files[slice.file] as Buffer;
    const at = (row: number, col: number) => {
      const index = row * slice.numCols + col;
      if (slice.fp8 !== null) return this.#fp8Value(file.readUInt8(slice.byteOffset + index), row, col, slice.numCols, slice.fp8);
      if (slice.integers !== null && isKept) {
        const { code, scale } = integerParts(this.#files, slice, slice.integers, row, col);
        return code * scale;
      }
      if (slice.integers !== null) return integerValue(this.#files, slice, slice.integers, row, col);
      return readElement(file, slice.byteOffset, index, slice.dtype);
    };
    return Array.from({ length: slice.rowEnd - slice.rowBegin }, (_, row) =>
      Float64Array.from({ length: slice.colEnd - slice.colBegin }, (_, col) => at(slice.rowBegin + row, slice.colBegin + col)),
    );
  }

  /** bf16(w · scale), the product in fp32. */
  #fp8Value(code: number, row: number, col: number, numCols: number, scales: Fp8Scales): number {
    const index = Math.floor(row / scales.rowsPerScale) * Math.ceil(numCols / scales.colsPerScale) + Math.floor(col / scales.colsPerScale);
    const file = this.#files[scales.file] as Buffer;
    return toBf16(Math.fround(e4m3(code) * readElement(file, scales.byteOffset, index, scales.dtype)));
  }

  /** Runs an operator that involves no other rank. */
  run(op: OpSpec, logitRows: readonly number[]): void {
    switch (op.op) {
      case 'rmsNorm':
        this.values.set(
          op.out,
          this.value(op.x).map((row) => rmsNorm(row, this.weight(op.weight)[0] as Float64Array, op.eps)),
        );
        break;
      case 'linear':
        this.values.set(op.out, this.#linear(op));
        break;
      case 'headNorm':
        for (const row of this.value(op.qkv)) {
          for (const [offset, heads, weight] of [
            [op.heads.qOffset, op.heads.numHeads, op.qWeight],
            [op.heads.kOffset, op.heads.numKvHeads, op.kWeight],
          ] as const) {
            for (const head of splitHeads(row, offset, heads, op.heads.headDim))
              head.set(rmsNorm(head, this.weight(weight)[0] as Float64Array, op.eps));
          }
        }
        break;
      case 'ropeAndStore':
        this.values.set(op.out, this.#ropeAndStore(op));
        break;
      case 'pagedAttention':
        this.values.set(op.out, this.#attention(op));
        break;
      case 'siluMul': {
        const width = this.program.values[op.out]?.width as number;
        const silu = (x: number) => x / (1 + Math.exp(-x));
        this.values.set(
          op.out,
          this.value(op.gateUp).map((row) =>
            Float64Array.from({ length: width }, (_, i) => silu(row[i] as number) * (row[op.upOffset + i] as number)),
          ),
        );
        break;
      }
      case 'add':
        this.values.set(
          op.out,
          this.value(op.a).map((row, i) => row.map((x, j) => x + (this.value(op.b)[i]?.[j] as number))),
        );
        break;
      case 'gatherRows':
        this.values.set(
          op.out,
          logitRows.map((row) => this.value(op.x)[row] as Float64Array),
        );
        break;
      case 'hiddenStates':
        break; // This run asks for logits only.
      default:
        throw new Error(`${op.op} needs all ranks`);
    }
  }

  #linear(op: OpSpec & { op: 'linear' }): Matrix {
    const width = this.program.values[op.out]?.width as number;
    const weight = this.weight(op.weight);
    const bias = op.bias === null ? undefined : this.weight(op.bias)[0];
    const spec = this.program.weights[op.weight];
    const codes = spec?.kind === 'linear' && spec.codes !== null ? { ...spec.codes, chunkEdges: spec.chunkEdges } : null;
    return this.value(op.x).map((whole) => {
      const x = codes === null ? whole : throughGroups(whole, codes);
      const out = new Float64Array(width);
      for (let n = 0; n < width; n++) out[n] = dot(x, weight[n] as Float64Array) + (bias?.[n] ?? 0);
      return out;
    });
  }

  #ropeAndStore(op: OpSpec & { op: 'ropeAndStore' }): Matrix {
    const { headDim, numHeads, numKvHeads, qOffset, kOffset, vOffset } = op.heads;
    const { invFreq, scale, queryScales, queryLength } = this.program.ropes[op.rope] as ProgramSpec['ropes'][number];
    const rotate = (head: Float64Array, position: number) => {
      for (const [i, frequency] of invFreq.entries()) {
        const [a, b] = [head[i] as number, head[i + headDim / 2] as number];
        const [cos, sin] = [Math.cos(position * frequency) * scale, Math.sin(position * frequency) * scale];
        head[i] = a * cos - b * sin;
        head[i + headDim / 2] = b * cos + a * sin;
      }
    };
    const rows = this.value(op.qkv);
    rows.forEach((row, position) => {
      for (const head of [...splitHeads(row, qOffset, numHeads, headDim), ...splitHeads(row, kOffset, numKvHeads, headDim)])
        rotate(head, position);
    });
    const columns = (offset: number, heads: number) => rows.map((row) => row.slice(offset, offset + heads * headDim));
    this.#kv.set(op.layer, { k: columns(kOffset, numKvHeads), v: columns(vOffset, numKvHeads) });
    const factor = (position: number) => queryScales[Math.floor(position / queryLength)] ?? 1;
    return columns(qOffset, numHeads).map((row, position) => row.map((x) => x * factor(position)));
  }

  #attention(op: OpSpec & { op: 'pagedAttention' }): Matrix {
    const { headDim } = op.heads;
    const { k, v } = this.#kv.get(op.layer) as { k: Matrix; v: Matrix };
    return this.value(op.q).map((row, i) => {
      const out = new Float64Array(row.length);
      splitHeads(row, 0, op.heads.numHeads, headDim).forEach((q, head) => {
        const from = kvColumn(op.heads, head);
        const first = op.slidingWindow > 0 ? Math.max(0, i - op.slidingWindow + 1) : 0;
        const scores = k.slice(first, i + 1).map((key) => op.scale * q.reduce((sum, x, d) => sum + x * (key[from + d] as number), 0));
        const most = Math.max(...scores);
        const masses = scores.map((score) => Math.exp(score - most));
        const total = masses.reduce((a, b) => a + b);
        masses.forEach((mass, j) => {
          for (let d = 0; d < headDim; d++)
            out[head * headDim + d] = (out[head * headDim + d] as number) + (mass / total) * (v[first + j]?.[from + d] as number);
        });
      });
      return out;
    });
  }
}

function dot(a: Float64Array, b: Float64Array): number {
  if (a.length !== b.length) throw new Error(`${a.length} inputs meet ${b.length} weights`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

function kvColumn({ firstHead, groupSize, firstKvHead, headDim }: HeadLayout, head: number): number {
  return (Math.floor((firstHead + head) / groupSize) - firstKvHead) * headDim;
}

/** Views of `count` heads in a row. */
function splitHeads(row: Float64Array, offset: number, count: number, headDim: number): Float64Array[] {
  return Array.from({ length: count }, (_, h) => row.subarray(offset + h * headDim, offset + (h + 1) * headDim));
}

/** Activations as the product with kept integers takes them: rounded by groups of positions, in which every column has a place. */
function throughGroups(
  x: Float64Array,
  { group, columns, chunkEdges }: KeptCodes & { readonly chunkEdges: readonly number[] },
): Float64Array {
  const order = columns ?? [...x.keys()];
  const out = new Float64Array(x.length).fill(Number.NaN);
  for (const [i, end] of chunkEdges.slice(1).entries()) {
    for (let begin = chunkEdges[i] as number; begin < end; begin += group) {
      const places = order.slice(begin, Math.min(end, begin + group)).filter((column) => column >= 0);
      const { q, scale } = quantizeActivations(Float32Array.from(places, (column) => x[column] as number));
      places.forEach((column, l) => {
        out[column] = (q[l] as number) * scale;
      });
    }
  }
  return out;
}

function rmsNorm(row: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const scale = 1 / Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length + eps);
  return row.map((x, i) => x * scale * (weight[i] as number));
}

function padded(row: Float64Array): number[] {
  return [...row, ...new Array<number>(pad(row.length) - row.length).fill(0)];
}

function paddedRows(rows: Matrix, width: number): Matrix {
  return [...rows, ...Array.from({ length: pad(rows.length) - rows.length }, () => new Float64Array(width))];
}

/** Logits `[logitRows.length][vocabSize]` of a prompt; `ranks` are all ranks of a model, in order. */
export function referenceRun(ranks: readonly ReferenceRank[], tokenIds: readonly number[], logitRows: readonly number[]): Matrix {
  let logits: Matrix = [];
  for (let i = 0; i < (ranks[0]?.program.ops.length ?? 0); i++) {
    const step = ranks.map((rank) => ({ rank, op: rank.program.ops[i] as OpSpec }));
    if (step.some(({ op }) => op.op !== step[0]?.op.op)) throw new Error(`ranks differ in operator ${i}`);
    const embedded: Matrix = [];
    const sums = new Map<ReferenceRank, Matrix>();
    for (const { rank, op } of step) {
      if (op.op === 'embedding') {
        const spec = rank.program.weights[op.table];
        const firstRow = spec?.kind === 'table' ? spec.firstRow : 0;
        tokenIds.forEach((id, row) => {
          const found = rank.weight(op.table)[id - firstRow];
          if (found !== undefined && embedded[row] !== undefined) throw new Error(`two ranks hold the row of token ${id}`);
          if (found !== undefined) embedded[row] = found;
        });
        rank.values.set(op.out, embedded);
      } else if (op.op === 'allReduce') {
        const bias = op.bias === null ? undefined : rank.weight(op.bias)[0];
        const parts = step.map((other) => other.rank.value((other.op as typeof op).x));
        sums.set(
          rank,
          (parts[0] as Matrix).map((row, r) =>
            row.map((_, c) => parts.reduce((sum, part) => sum + (part[r]?.[c] as number), bias?.[c] ?? 0)),
          ),
        );
      } else if (op.op === 'sample') {
        const own = rank.value(op.logits);
        if (op.firstTokenId !== (logits[0]?.length ?? 0)) throw new Error('ranks leave out or repeat tokens');
        logits = own.map((row, r) => Float64Array.from([...(logits[r] ?? []), ...row.subarray(0, op.numTokenIds)]));
      } else {
        rank.run(op, logitRows);
      }
    }
    for (const { rank, op } of step) if (op.op === 'allReduce') rank.values.set(op.out, sums.get(rank) as Matrix);
  }
  return logits;
}
