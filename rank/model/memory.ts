/** Bytes that a rank takes to hold and to run its program, as native lays them out. Pure. */
import type { OpSpec, ProgramSpec, TensorSlice, ValueId, WeightFormat, WeightSpec } from '../program-spec.ts';
import { fp8Quad } from './kept-codes.ts';
import { padToPanel, panelSize } from './partition.ts';

/** Memory of a rank's weights, in bytes. */
export interface WeightBytes {
  /** Packed or copied. */
  readonly held: number;
  /** Tables that are read in place from the mapped file, whose pages the system can take back. */
  readonly mapped: number;
}

/** Weights of a program on the CPU. */
export function cpuWeightBytes({ weights }: ProgramSpec): WeightBytes {
  const tables = weights.filter((weight) => weight.kind === 'table' && isInPlace(weight));
  const held = sum(weights, (weight) => (tables.includes(weight) ? 0 : cpuBytesOf(weight)));
  return { held, mapped: sum(tables, cpuBytesOf) };
}

/** Of a program's weights on the CPU: its packed matrices. */
export function cpuPackedBytes({ weights }: ProgramSpec): number {
  return sum(weights, (weight) => (weight.kind === 'linear' ? cpuBytesOf(weight) : 0));
}

const isInPlace = ({ slice, dtype }: Extract<WeightSpec, { kind: 'table' }>) =>
  slice.dtype === dtype && slice.fp8 === null && slice.integers === null;

/** A piece is padded to whole panels of outputs. */
function cpuBytesOf(weight: WeightSpec): number {
  if (weight.kind === 'vector') return vectorBytes(weight.pieces);
  if (weight.kind === 'table') return numRows(weight.slice) * cpuRowBytes(weight);
  return sum(weight.pieces, (piece) => padToPanel(numRows(piece))) * cpuRowBytes(weight);
}

/** Bytes of one row of a table, or of one output of a matrix, on the CPU. */
export function cpuRowBytes(weight: Exclude<WeightSpec, { kind: 'vector' }>): number {
  if (weight.kind === 'table') return weight.slice.numCols * (weight.dtype === 'float32' ? 4 : 2);
  const bytes = weight.format === 'fp8' ? fp8Bytes(weight) : sum(chunkLengths(weight), (length) => chunkBytes(weight, length));
  // Panels begin at cache lines.
  return Math.ceil((bytes * panelSize) / 64) * (64 / panelSize);
}

/** Bytes of an output of 8-bit floats: each chunk padded to four inputs, and an fp32 scale for each run of inputs. */
function fp8Bytes({ pieces, chunkEdges }: LinearSpec): number {
  const begin = pieces[0]?.colBegin ?? 0;
  const perScale = Math.min(...pieces.map(({ fp8 }) => fp8?.colsPerScale ?? 1));
  return sum(chunkEdges.slice(1), (end, i) => {
    const [first, length] = [begin + (chunkEdges[i] as number), end - (chunkEdges[i] as number)];
    const numRuns = length === 0 ? 0 : Math.floor((first + length - 1) / perScale) - Math.floor(first / perScale) + 1;
    return padToQuad(length) + 4 * numRuns;
  });
}

type LinearSpec = Extract<WeightSpec, { kind: 'linear' }>;

const padToQuad = (numCols: number) => Math.ceil(numCols / fp8Quad) * fp8Quad;

const chunkLengths = ({ chunkEdges }: LinearSpec) => chunkEdges.slice(1).map((edge, i) => edge - (chunkEdges[i] as number));

/** Inputs that share a scale at most where they are quantized at load, the bytes of each, and those of a group's zero point. */
const quantizedFormats = {
  int8: { group: 128, codeBytes: 1, zeroBytes: 0 },
  int8_zero: { group: 128, codeBytes: 1, zeroBytes: 2 },
  int4: { group: 128, codeBytes: 0.5, zeroBytes: 0 },
  int4_zero: { group: 32, codeBytes: 0.5, zeroBytes: 1 },
} as const;

/** Whether a matrix of this format is quantized. */
export function isQuantized(format: WeightFormat): format is keyof typeof quantizedFormats {
  return Object.hasOwn(quantizedFormats, format);
}

/** Whether the tiles of a group have multipliers, a byte each: int4 that is made at load. */
const hasMultipliers = ({ format, codes }: LinearSpec) => format === 'int4' && codes === null;

/** Whether AMX multiplies it decoded to int8. */
const isDecodedInt4 = (weight: LinearSpec) => weight.format.startsWith('int4') && groupOf(weight) > panelSize;

/** Inputs or positions that share a scale; 1 without. */
const groupOf = ({ format, codes }: LinearSpec) => codes?.group ?? (isQuantized(format) ? quantizedFormats[format].group : 1);

/**
 * Bytes of a chunk of inputs, for each output: bf16 is padded to pairs; quantized formats to tiles, perhaps with a
 * multiplier, and with a scale and perhaps a zero point for each group.
 */
function chunkBytes(weight: LinearSpec, length: number): number {
  const { format, codes } = weight;
  if (isQuantized(format)) {
    const { codeBytes, zeroBytes } = quantizedFormats[format];
    const groupBytes = (codes?.scaleDtype === 'float32' ? 4 : 2) + zeroBytes;
    const tileBytes = panelSize * codeBytes + (hasMultipliers(weight) ? 1 : 0);
    return Math.ceil(length / panelSize) * tileBytes + groupBytes * Math.ceil(length / groupOf(weight));
  }
  if (format === 'bfloat16') return 2 * (length + (length % 2));
  return length * (format === 'float32' ? 4 : 2);
}

/** Bytes of a program's weights in a device's memory: as kept, rows and columns padded to panels; vectors in fp32. */
export function cudaWeightBytes({ weights }: ProgramSpec): number {
  return sum(weights, cudaBytesOf);
}

function cudaBytesOf(weight: WeightSpec): number {
  if (weight.kind === 'vector') return vectorBytes(weight.pieces);
  const size = (weight.kind === 'table' ? weight.dtype : weight.format) === 'float32' ? 4 : 2;
  if (weight.kind === 'table') return numRows(weight.slice) * padToPanel(weight.slice.numCols) * size;
  const ld = padToPanel(weight.chunkEdges.at(-1) ?? 0);
  return sum(weight.pieces, (piece) => padToPanel(numRows(piece)) * ld) * size;
}

const vectorBytes = (pieces: readonly TensorSlice[]) => sum(pieces, ({ colBegin, colEnd }) => padToPanel(colEnd - colBegin) * 4);
const numRows = ({ rowBegin, rowEnd }: TensorSlice) => rowEnd - rowBegin;

/**
 * Buffers of the largest step on the CPU: values, rotary tables, edited logits. Less than native takes by the scratch of
 * attention, some kB a thread, of decoded weights of all threads but one, and, on more threads than an eighth of the
 * rows, of each thread's own quantized activations.
 */
export function cpuStepBytes(program: ProgramSpec, rank: number, worldSize: number, isa: string): number {
  const { maxNumBatchedTokens, maxNumLogitRows, ops, ropes } = program;
  const roots = new Map(
    ops.flatMap((op) => (op.op === 'linear' && op.partial ? [[op.out, rootsOf(program, op.weight, rank, worldSize)]] : [])),
  );
  const bytesOf = (id: ValueId) => {
    const { rows, width, type } = program.values[id] as ProgramSpec['values'][number];
    const size = type === 'activation' && program.dtype === 'bfloat16' ? 2 : 4;
    return (roots.get(id) ?? 1) * (rows === 'logitRows' ? maxNumLogitRows : maxNumBatchedTokens) * rowStride(width, type) * size;
  };
  const quantized = Math.max(0, ...ops.map((op) => (op.op === 'linear' ? quantizedBytes(program, op, isa) : 0)));
  const decoded = Math.max(0, ...program.weights.map((weight) => decodedBytes(weight, isa)));
  const edited = sum(ops, (op) => (op.op === 'sample' ? bytesOf(op.logits) : 0));
  const ropeTables = sum(ropes, ({ invFreq }) => 2 * 4 * maxNumBatchedTokens * invFreq.length);
  return arenaBytes(ops, program.values.length, worldSize === 1, bytesOf) + quantized + decoded + edited + ropeTables;
}

/** Panels that a thread holds decoded, 8-bit floats as bf16 and int4 on AMX as int8: half a megabyte, or at least two. */
function decodedBytes(weight: WeightSpec, isa: string): number {
  if (weight.kind !== 'linear' || !(weight.format === 'fp8' || (isa === 'amx' && isDecodedInt4(weight)))) return 0;
  const bytesOf = (length: number) =>
    weight.format === 'fp8' ? padToQuad(length) * 2 : padToPanel(length) + 2 * Math.ceil(length / groupOf(weight));
  const panelBytes = sum(chunkLengths(weight), bytesOf) * panelSize;
  const numPanels = sum(weight.pieces, (piece) => padToPanel(numRows(piece))) / panelSize;
  return Math.min(Math.max(2, Math.floor(2 ** 19 / (panelBytes + 1))), numPanels) * panelBytes;
}

/** Instruction sets that multiply int8 in 16 bits, as which its activations are then kept. */
const widening: readonly string[] = ['avx2', 'avx512'];

/** All rows of the input of a product with a quantized matrix: a header for each group, and each group padded to tiles. */
function quantizedBytes(program: ProgramSpec, { x, weight: id }: Extract<OpSpec, { op: 'linear' }>, isa: string): number {
  const weight = program.weights[id];
  if (weight?.kind !== 'linear' || !isQuantized(weight.format)) return 0;
  const isWidened = quantizedFormats[weight.format].codeBytes === 1 && widening.includes(isa);
  const headerBytes = isa === 'amx' && groupOf(weight) % 64 === 0 ? 64 : hasMultipliers(weight) ? 24 : 8;
  const rowBytes = sum(
    chunkLengths(weight),
    (length) => padToPanel(length) * (isWidened ? 2 : 1) + headerBytes * Math.ceil(length / groupOf(weight)),
  );
  const numRows = program.values[x]?.rows === 'logitRows' ? program.maxNumLogitRows : program.maxNumBatchedTokens;
  // Rows are an odd number of cache lines apart.
  return numRows * (Math.ceil(rowBytes / 64) | 1) * 64;
}

/** Elements: activations avoid strides that are a power of two. */
function rowStride(width: number, type: 'fp32' | 'activation'): number {
  const padded = padToPanel(width);
  return type === 'activation' && (padded / panelSize) % 2 === 0 ? padded + panelSize : padded;
}

/** Size of the buffer of all values: each takes the lowest gap that is free while it lives, as in native's arena. */
function arenaBytes(ops: readonly OpSpec[], numValues: number, isAlone: boolean, bytesOf: (id: ValueId) => number): number {
  const lives = livesOf(ops, isAlone);
  const placed: { readonly begin: number; readonly end: number; readonly first: number; readonly last: number }[] = [];
  for (let id = 0; id < numValues; id++) {
    const life = lives.get(id);
    if (life === undefined) continue;
    const [first, last] = life;
    const bytes = bytesOf(id);
    let begin = 0;
    for (const other of placed) {
      if (other.first > last || first > other.last) continue;
      if (begin + bytes <= other.begin) break;
      begin = Math.max(begin, Math.ceil(other.end / 64) * 64);
    }
    const next = placed.findIndex((other) => other.begin > begin);
    placed.splice(next < 0 ? placed.length : next, 0, { begin, end: begin + bytes, first, last });
  }
  return Math.max(0, ...placed.map(({ end }) => end));
}

/** Operators of which a part reads and writes the same rows of all values; the second list on one rank alone. */
const rowWise: readonly OpSpec['op'][] = ['rmsNorm', 'headNorm', 'ropeAndStore', 'add'];
const rowWiseAlone: readonly OpSpec['op'][] = [...rowWise, 'embedding', 'allReduce'];

/**
 * The first and the last operator during which each value is held, as native runs them: a product and the `siluMul` that
 * reads it are one operator, an `allReduce` of one rank without a bias is none, and a part of a row-wise operator may
 * still run during the last one of those that follow each other.
 */
function livesOf(ops: readonly OpSpec[], isAlone: boolean): Map<ValueId, readonly [first: number, last: number]> {
  const heldIn = new Map<ValueId, ValueId>();
  const run = ops.flatMap((op, i) => {
    if (op.op === 'siluMul') return [];
    if (op.op === 'allReduce' && isAlone && op.bias === null) {
      heldIn.set(op.out, op.x);
      return [];
    }
    const next = ops[i + 1];
    const values = op.op === 'linear' && next?.op === 'siluMul' ? [op.x, next.out] : valuesOf(op);
    return [{ op, i, values: values.map((id) => heldIn.get(id) ?? id) }];
  });
  const kinds = isAlone ? rowWiseAlone : rowWise;
  const lives = new Map<ValueId, readonly [first: number, last: number]>();
  let until = -1;
  for (let k = run.length - 1; k >= 0; k--) {
    const { op, i, values } = run[k] as (typeof run)[number];
    until = Math.max(until, i);
    for (const id of values) lives.set(id, [i, Math.max(until, lives.get(id)?.[1] ?? -1)]);
    const before = run[k - 1]?.op.op;
    const joins = before !== undefined && kinds.includes(op.op) && (before === 'gatherRows' || kinds.includes(before));
    if (!joins) until = -1;
  }
  return lives;
}

/** The values that an operator reads or writes. */
function valuesOf(op: OpSpec): ValueId[] {
  const { x, a, b, q, qkv, gateUp, logits, out } = op as Partial<
    Record<'x' | 'a' | 'b' | 'q' | 'qkv' | 'gateUp' | 'logits' | 'out', ValueId>
  >;
  return [x, a, b, q, qkv, gateUp, logits, out].filter((id) => id !== undefined);
}

/** Partial sums that a rank keeps of a matrix: the largest nodes of the tree over its chunks that lie inside its range. */
function rootsOf({ weights }: ProgramSpec, id: number, rank: number, worldSize: number): number {
  const weight = weights[id];
  const numChunks = weight?.kind === 'linear' ? weight.numChunks : 1;
  const edge = (r: number) => Math.floor((r * numChunks) / worldSize);
  const [begin, end] = [edge(rank), edge(rank + 1)];
  const count = (level: number, index: number): number => {
    const [first, last] = [index, index + 1].map((i) => Math.floor((i * numChunks) / 2 ** level)) as [number, number];
    if (first >= end || last <= begin || first === last) return 0;
    return begin <= first && last <= end ? 1 : count(level + 1, index * 2) + count(level + 1, index * 2 + 1);
  };
  return count(0, 0);
}

function sum<T>(list: readonly T[], amount: (item: T, index: number) => number): number {
  return list.reduce((total, item, i) => total + amount(item, i), 0);
}
