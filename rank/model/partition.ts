/** The shard of a model that each rank holds, for any number of ranks. Pure, so every rank computes the same. */
import { NdsError } from '../../protocol/errors.ts';
import type { ModelConfig } from './config/config.ts';

/** `[begin, end)`. */
export type Range = readonly [begin: number, end: number];

/** One rank's shard. Ranges index the whole model. */
export interface Partition {
  readonly rank: number;
  readonly worldSize: number;
  /**
   * Chunks of the sums over heads and over MLP columns, equal to the number of attention heads. It is a property of the
   * model, so that a sum is the same tree of additions for any number of ranks.
   */
  readonly numChunks: number;
  /** Query heads; head h is also chunk h. */
  readonly heads: Range;
  /** KV heads that those query heads use; two ranks share one where a group is split. */
  readonly kvHeads: Range;
  /** Output columns of gate and up = input columns of `down_proj`. */
  readonly mlpColumns: Range;
  /** `[numChunks + 1]` edges of all ranks' chunks of MLP columns; head h's chunk is this rank's if the head is. */
  readonly mlpEdges: readonly number[];
  /** Rows of the embedding and of the LM head; may be empty. */
  readonly vocabRows: Range;
}

/** Output columns that kernels compute together; most edges are multiples of it. */
export const panelSize = 32;

/** Rounds up to whole panels. */
export function padToPanel(size: number): number {
  return Math.ceil(size / panelSize) * panelSize;
}

/**
 * Rank r of N holds heads `[⌊rC/N⌋, ⌊(r+1)C/N⌋)` of C, so N need not divide C.
 * @throws NdsError `ERR_TOO_MANY_RANKS` when there are more ranks than heads.
 */
export function partition(config: ModelConfig, rank: number, worldSize: number): Partition {
  const numChunks = config.numAttentionHeads;
  if (worldSize > numChunks) {
    throw new NdsError(
      'ERR_TOO_MANY_RANKS',
      `Expected at most ${numChunks} ranks for a model of ${numChunks} attention heads but received ${worldSize}`,
    );
  }
  const heads = share(numChunks, rank, worldSize);
  const groupSize = numChunks / config.numKvHeads;
  const mlpEdges = edgesOfMlp(config.intermediateSize, numChunks);
  const mlpColumns: Range = [mlpEdges[heads[0]] as number, mlpEdges[heads[1]] as number];
  const panels = share(Math.ceil(config.vocabSize / panelSize), rank, worldSize);
  return {
    rank,
    worldSize,
    numChunks,
    heads,
    kvHeads: [Math.floor(heads[0] / groupSize), Math.ceil(heads[1] / groupSize)],
    mlpColumns,
    mlpEdges,
    vocabRows: [Math.min(panels[0] * panelSize, config.vocabSize), Math.min(panels[1] * panelSize, config.vocabSize)],
  };
}

function share(count: number, rank: number, worldSize: number): Range {
  return [Math.floor((rank * count) / worldSize), Math.floor(((rank + 1) * count) / worldSize)];
}

/** `[numChunks + 1]` edges: multiples of a panel, or of 4 where panels are fewer than chunks; the last is ragged. */
function edgesOfMlp(intermediateSize: number, numChunks: number): number[] {
  const grain = intermediateSize / panelSize < numChunks ? 4 : panelSize;
  const edge = (i: number) => Math.floor(Math.floor((i * intermediateSize) / numChunks) / grain) * grain;
  return Array.from({ length: numChunks + 1 }, (_, i) => (i === numChunks ? intermediateSize : edge(i)));
}

/**
 * Chunk edges of an unsharded sum over k inputs. They depend on k alone; several chunks let a kernel run several chains
 * of additions in parallel.
 */
export function inputChunkEdges(k: number): number[] {
  const numChunks = k >= 256 ? 4 : k >= 128 ? 2 : 1;
  return Array.from({ length: numChunks + 1 }, (_, i) => (i === numChunks ? k : Math.floor((i * k) / numChunks / panelSize) * panelSize));
}
