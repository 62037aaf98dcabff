/** What a model of this machine needs. */
import { NdsError } from '../../protocol/errors.ts';
import type { ListedModel } from '../../rank/hub/list-models.ts';
import { type IntegerMatrices, kvBytesPerBlock, partition, readModel } from '../../rank/model/index.ts';

export type ModelFolder = Pick<ListedModel, 'name' | 'folder'>;

/** A model's memory, or why it is not supported. */
export interface ModelNeeds extends ModelFolder {
  readonly weightBytes: number;
  /** Weights that every decoded token reads: all but the embedding. */
  readonly readBytes: number;
  /** Weights, and the KV cache `auto` of one sequence of `contextTokens` on a CPU. */
  readonly neededBytes: number;
  readonly refused: string | null;
  /** Matrices that are stored as integers or 8-bit floats. */
  readonly integers: IntegerMatrices | null;
}

/** Tokens of a sequence whose KV cache counts. */
export const contextTokens = 2048;

/** Reads a model's configuration and tensor headers. */
export function needsOf({ name, folder }: ModelFolder): ModelNeeds {
  try {
    const { config, tensors, storedDtype, weightBytes, integers } = readModel(folder);
    const { numRows, numCols, dtype } = tensors.embedTokens;
    const readBytes = weightBytes - numRows * numCols * (dtype === 'float32' ? 4 : 2);
    const kvDtype = storedDtype === 'bfloat16' ? 'bfloat16' : 'float32';
    const kvBytes = kvBytesPerBlock(config, partition(config, 0, 1), contextTokens, kvDtype);
    return { name, folder, weightBytes, readBytes, neededBytes: weightBytes + kvBytes, refused: null, integers };
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    return { name, folder, weightBytes: 0, readBytes: 0, neededBytes: 0, refused: error.message, integers: null };
  }
}

/** Formats and numbers of matrices stored as integers or 8-bit floats, e.g. `int4: 180, bfloat16: 2`; empty without any. */
export function integersText(integers: IntegerMatrices | null): string {
  if (integers === null) return '';
  const counts = { ...integers.numKept, bfloat16: integers.expanded.length };
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([format, count]) => `${format}: ${count}`)
    .join(', ');
}
