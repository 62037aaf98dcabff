/** What decides the bytes of a packed shard, as one key. Pure. */
import { createHash } from 'node:crypto';
import { isQuantized } from '../model/index.ts';
import type { ProgramSpec } from '../program-spec.ts';

/** Whose packed matrices they are. */
export interface ShardOrigin {
  /** See `modelHash`. */
  readonly modelHash: string;
  readonly rank: number;
  readonly worldSize: number;
  /** See `Addon.packedLayout`. */
  readonly layout: number;
}

/** SHA-256 of the origin and of all matrices: tensors, rows, columns, formats and chunks, but not where they lie in files. */
export function shardKey({ modelHash, rank, worldSize, layout }: ShardOrigin, { weights }: Pick<ProgramSpec, 'weights'>): Uint8Array {
  const matrices = weights.filter(({ kind }) => kind === 'linear');
  const text = JSON.stringify([layout, modelHash, rank, worldSize, matrices], (key, value) =>
    key === 'file' || key === 'byteOffset' ? undefined : value,
  );
  return createHash('sha256').update(text).digest();
}

/** Formats of a program's matrices, e.g. `int4, int8`. */
export function formatsOf({ weights }: Pick<ProgramSpec, 'weights'>): string {
  return [...new Set(weights.flatMap((weight) => (weight.kind === 'linear' ? [weight.format] : [])))].sort().join(', ');
}

/** Whether any matrix is quantized. */
export function hasQuantized({ weights }: Pick<ProgramSpec, 'weights'>): boolean {
  return weights.some((weight) => weight.kind === 'linear' && isQuantized(weight.format));
}
