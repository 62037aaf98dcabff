/** The integers and 8-bit floats of a checkpoint that stay as they are: in which format, and which column is where. Pure. */
import type { KeptCodes } from '../program-spec.ts';
import { padToPanel, panelSize } from './partition.ts';
import type { TensorIntegers } from './stored-integers.ts';
import type { TensorScales } from './stored-types.ts';

/** What the plan asks of a matrix's integers. */
export type PlannedIntegers = Pick<TensorIntegers, 'bits' | 'layout' | 'zeroOffset' | 'groupSize' | 'groups'> & {
  readonly scales: Pick<TensorIntegers['scales'], 'dtype'>;
  readonly zeros: object | null;
};

/** Columns of a matrix as the chunks of its sums cut them. */
export interface CutColumns {
  /** `[numLocalChunks + 1]` edges of this rank's chunks, from its first column, which is `begin` of the whole matrix. */
  readonly edges: readonly number[];
  readonly begin: number;
  /** `[numChunks + 1]` edges of all ranks' chunks; `null` where every rank has all columns, which may then change chunks. */
  readonly all: readonly number[] | null;
  /** Place of this rank's first chunk among all. */
  readonly first: number;
}

/** How a matrix keeps its integers. */
export interface CodesPlan {
  readonly format: 'int8' | 'int8_zero' | 'int4' | 'int4_zero';
  readonly codes: KeptCodes;
  readonly chunkEdges: readonly number[];
}

/** Why a matrix does not keep its integers, as the end of a sentence about it. */
export interface NotKept {
  readonly reason: string;
}

/** How a matrix keeps its 8-bit floats. */
export interface Fp8Plan {
  readonly format: 'fp8';
}

/** Columns of 8-bit floats that are decoded together, under one scale. */
export const fp8Quad = 4;

/** Positions may exceed columns, each chunk padded to tiles, by this factor; beyond it bfloat16 is kept. */
const mostPadding = 1.25;

/**
 * Plans the matrix of `pieces`, stacked over the same columns. The answer depends on the whole matrix, never on a rank's
 * share of it, so that all ranks sum the same values.
 */
export function planCodes(pieces: readonly (PlannedIntegers | null)[], columns: CutColumns): CodesPlan | NotKept {
  const integers = pieces.filter((piece) => piece !== null);
  if (integers.length < pieces.length) return { reason: 'shares its product with matrices that are not stored as integers' };
  const bits = new Set(integers.map((piece) => piece.bits));
  if (bits.size > 1) return { reason: 'shares its product with integers of another width' };
  const width = bits.has(8) ? 'int8' : 'int4';
  const format = integers.some(hasZeros) ? (`${width}_zero` as const) : width;
  const scaleDtype = integers.some(({ scales }) => scales.dtype === 'float32') ? 'float32' : 'float16';
  // Groups of 4 bits that AMX decodes have fp16 scales.
  const sizes = bits.has(8) || scaleDtype === 'float16' ? [128, 64, panelSize] : [panelSize];
  const layout = layOut(integers, columns, sizes);
  if ('reason' in layout) return layout;
  return { format, codes: { group: layout.group, scaleDtype, columns: layout.columns }, chunkEdges: layout.edges };
}

/** The same for pieces of 8-bit floats. */
export function planFp8(pieces: readonly (Pick<TensorScales, 'colsPerScale'> | null)[], { edges, all }: CutColumns): Fp8Plan | NotKept {
  const scales = pieces.filter((piece) => piece !== null);
  if (scales.length < pieces.length) return { reason: 'shares its product with matrices that are not stored as 8-bit floats' };
  const numCols = (all ?? edges).at(-1) as number;
  const narrowest = Math.min(numCols, ...scales.map(({ colsPerScale }) => colsPerScale));
  if (!scales.every(({ colsPerScale }) => colsPerScale >= numCols || colsPerScale % narrowest === 0))
    return { reason: 'shares its product with matrices whose scales cover other inputs' };
  if (!isAligned(all ?? edges, narrowest, fp8Quad)) return { reason: 'has scales that change between multiples of four inputs' };
  return { format: 'fp8' };
}

/** Whether integers have zero points beside the middle of their range. */
function hasZeros({ bits, layout, zeros, zeroOffset }: PlannedIntegers): boolean {
  return zeros !== null || zeroOffset !== (layout === 'bytes' ? 0 : 2 ** (bits - 1));
}

interface Layout {
  readonly group: number;
  readonly columns: readonly number[] | null;
  readonly edges: readonly number[];
}

function layOut(integers: readonly PlannedIntegers[], columns: CutColumns, groups: readonly number[]): Layout | NotKept {
  const order = commonOrder(integers);
  if (order !== null && 'reason' in order) return order;
  const all = columns.all ?? columns.edges;
  if (order === null) {
    const group = groups.find((size) => integers.every(({ groupSize }) => isAligned(all, groupSize, size)));
    if (group !== undefined) return { group, columns: null, edges: columns.edges };
  }
  const runsOf = order === null ? (begin: number, end: number) => runsInOrder(integers, begin, end) : sortedRuns(order, columns);
  const chunks = pairs(all).map(([begin, end]) => runsOf(begin, end));
  const numPadded = sum(chunks, (runs) => sum(runs, (run) => padToPanel(run.length)));
  if (numPadded > mostPadding * sum(pairs(all), ([begin, end]) => padToPanel(end - begin)))
    return { reason: 'has groups of inputs that padding would lengthen by more than a quarter' };
  const local = chunks.slice(columns.first, columns.first + columns.edges.length - 1);
  return { group: panelSize, ...positions(local, columns.begin) };
}

/** The group of each column where columns are not in order of their groups; `null` where all pieces' are. */
function commonOrder(integers: readonly PlannedIntegers[]): Int32Array | NotKept | null {
  const orders = integers.map(({ groups }) => groups);
  const [first = null] = orders;
  const isCommon = orders.every((groups) => groups === first || (groups !== null && first !== null && isSame(groups, first)));
  if (!isCommon) return { reason: 'shares its product with matrices that have their inputs in another order' };
  return first;
}

/** Whether no group of `groupSize` columns ends inside one of `size` columns, counted from the begin of each chunk. */
function isAligned(edges: readonly number[], groupSize: number, size: number): boolean {
  return pairs(edges).every(([begin, end]) => {
    for (let edge = (Math.floor(begin / groupSize) + 1) * groupSize; edge < end; edge += groupSize)
      if ((edge - begin) % size !== 0) return false;
    return true;
  });
}

type Run = readonly number[];

/** Columns `[begin, end)`, cut where a group of any piece ends. */
function runsInOrder(integers: readonly PlannedIntegers[], begin: number, end: number): Run[] {
  const runs: Run[] = [];
  for (let at = begin; at < end; ) {
    const next = Math.min(end, ...integers.map(({ groupSize }) => (Math.floor(at / groupSize) + 1) * groupSize));
    runs.push(range(at, next));
    at = next;
  }
  return runs;
}

/** Runs of a chunk of columns sorted by group: all of the matrix where every rank has them, else those of the chunk. */
function sortedRuns(groups: Int32Array, { all, edges }: CutColumns): (begin: number, end: number) => Run[] {
  if (all !== null) return (begin, end) => byGroup(groups, range(begin, end));
  const sorted = byGroup(groups, range(0, edges.at(-1) as number)).flat();
  return (begin, end) => byGroup(groups, sorted.slice(begin, end));
}

/** Columns of each group, groups ascending. */
function byGroup(groups: Int32Array, columns: Run): Run[] {
  const runs = new Map<number, number[]>();
  for (const column of columns) {
    const group = groups[column] as number;
    const run = runs.get(group);
    if (run === undefined) runs.set(group, [column]);
    else run.push(column);
  }
  return [...runs].sort(([a], [b]) => a - b).map(([, run]) => run);
}

/** Positions of chunks of runs, each padded to tiles. */
function positions(chunks: readonly (readonly Run[])[], begin: number): { columns: number[]; edges: number[] } {
  const columns: number[] = [];
  const edges = [0];
  for (const runs of chunks) {
    for (const run of runs) {
      for (const column of run) columns.push(column - begin);
      while (columns.length % panelSize !== 0) columns.push(-1);
    }
    edges.push(columns.length);
  }
  return { columns, edges };
}

const isSame = (a: Int32Array, b: Int32Array) => a.length === b.length && a.every((group, i) => group === b[i]);
const range = (begin: number, end: number) => Array.from({ length: end - begin }, (_, i) => begin + i);
const pairs = (edges: readonly number[]) => edges.slice(1).map((end, i) => [edges[i] as number, end] as const);
const sum = <T>(list: readonly T[], amount: (item: T) => number) => list.reduce((total, item) => total + amount(item), 0);
