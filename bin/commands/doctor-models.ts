/** What a model of this machine needs. */
import { NdsError } from '../../protocol/errors.ts';
import type { ListedModel } from '../../rank/hub/list-models.ts';
import {
  buildProgram,
  cpuWeightBytes,
  kvBytesPerBlock,
  type Model,
  partition,
  type QuantizedMatrices,
  readModel,
} from '../../rank/model/index.ts';

export type ModelFolder = Pick<ListedModel, 'name' | 'folder'>;

/** A model's memory, or why it is not supported. */
export interface ModelNeeds extends ModelFolder {
  readonly weightBytes: number;
  /** Weights that every decoded token reads: all but the embedding. */
  readonly readBytes: number;
  /** Weights, and the KV cache `auto` of one sequence of `contextTokens` on a CPU. */
  readonly neededBytes: number;
  /** Weights that one rank of one holds on a CPU with each `quantization`; null for a model that is not supported. */
  readonly quantizedBytes: Readonly<Record<'int8' | 'int4', number>> | null;
  readonly refused: string | null;
  /** Matrices that are stored as integers or 8-bit floats. */
  readonly integers: QuantizedMatrices | null;
}

/** Tokens of a sequence whose KV cache counts. */
export const contextTokens = 2048;

/** Reads a model's configuration and tensor headers. */
export function needsOf({ name, folder }: ModelFolder): ModelNeeds {
  try {
    const model = readModel(folder);
    const { config, tensors, storedDtype, weightBytes, integers } = model;
    const { numRows, numCols, dtype } = tensors.embedTokens;
    const readBytes = weightBytes - numRows * numCols * (dtype === 'float32' ? 4 : 2);
    const kvDtype = storedDtype === 'bfloat16' ? 'bfloat16' : 'float32';
    const kvBytes = kvBytesPerBlock(config, partition(config, 0, 1), contextTokens, kvDtype);
    const quantizedBytes = { int8: heldBytes(model, 'int8'), int4: heldBytes(model, 'int4') };
    return { name, folder, weightBytes, readBytes, neededBytes: weightBytes + kvBytes, quantizedBytes, refused: null, integers };
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    return { name, folder, weightBytes: 0, readBytes: 0, neededBytes: 0, quantizedBytes: null, refused: error.message, integers: null };
  }
}

/** Weights of one rank on a CPU. The limits of a step do not change them. */
function heldBytes(model: Model, quantization: 'int8' | 'int4'): number {
  const dtype = 'bfloat16';
  const limits = { numBlocks: 1, blockSize: 32, maxModelLen: contextTokens, maxNumSeqs: 1, maxNumBatchedTokens: 1, maxNumLogitRows: 1 };
  const sampleVocabSize = model.config.vocabSize;
  const program = buildProgram(model, { rank: 0, worldSize: 1, dtype, kvCacheDtype: dtype, quantization, sampleVocabSize, ...limits });
  const { held, mapped } = cpuWeightBytes(program);
  return held + mapped;
}

/** Formats and numbers of matrices stored as integers or 8-bit floats, e.g. `int4: 180, bfloat16: 2`; empty without any. */
export function integersText(integers: QuantizedMatrices | null): string {
  if (integers === null) return '';
  const counts = { ...integers.numKept, bfloat16: integers.expanded.length };
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([format, count]) => `${format}: ${count}`)
    .join(', ');
}
