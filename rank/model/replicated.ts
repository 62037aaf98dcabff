/** Weights that several ranks of a host hold: norms, KV heads that two ranks need, drafts that are not sharded. Pure. */
import type { ProgramSpec, TensorSlice, WeightSpec } from '../program-spec.ts';
import { cpuRowBytes } from './memory.ts';

/**
 * Bytes of a program's weights that the rank before holds too, without padding. Ranks hold ascending ranges, so that no
 * rank before that one adds to them.
 */
export function replicatedBytes({ weights }: ProgramSpec, before: ProgramSpec): number {
  const others = new Map(before.weights.map((weight) => [keyOf(weight), piecesOf(weight)]));
  return weights.reduce((sum, weight) => {
    const held = others.get(keyOf(weight)) ?? [];
    const common = piecesOf(weight).map((piece) => Math.max(0, ...held.map((other) => commonBytes(weight, piece, other))));
    return common.reduce((bytes, one) => bytes + one, sum);
  }, 0);
}

/** Weights of two ranks with one key are shards of the same tensors. */
const keyOf = (weight: WeightSpec) => JSON.stringify([weight.kind, piecesOf(weight).map(({ name }) => name)]);

const piecesOf = (weight: WeightSpec): readonly TensorSlice[] => (weight.kind === 'table' ? [weight.slice] : weight.pieces);

/** Elements of a vector, which is kept in fp32, or rows of a matrix: none where two slices of it hold other columns. */
function commonBytes(weight: WeightSpec, a: TensorSlice, b: TensorSlice): number {
  if (a.name !== b.name) return 0;
  if (weight.kind === 'vector') return 4 * common(a.colBegin, a.colEnd, b.colBegin, b.colEnd);
  if (a.colBegin !== b.colBegin || a.colEnd !== b.colEnd) return 0;
  return common(a.rowBegin, a.rowEnd, b.rowBegin, b.rowEnd) * cpuRowBytes(weight);
}

const common = (begin: number, end: number, otherBegin: number, otherEnd: number) =>
  Math.max(0, Math.min(end, otherEnd) - Math.max(begin, otherBegin));
