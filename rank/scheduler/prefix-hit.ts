/** With which blocks that hold the beginning of its text already a sequence may come in: pure, takes nothing. */
import type { BlockManager } from '../kv/block-manager.ts';
import type { Sequence } from './sequence.ts';

/** Cached blocks with which a sequence can begin. */
export interface PrefixHit {
  readonly blocks: readonly number[];
  /** Of its text, less than the blocks hold where the last one has to be copied and written. */
  readonly numTokens: number;
}

const nothing: PrefixHit = { blocks: [], numTokens: 0 };

/** Samples of a request wait until the first has computed their common prompt, less the last token. */
export function waitsForLeader({ leader, numHitTokens, numPromptTokens }: Sequence): boolean {
  if (leader === null || leader.isDone || numHitTokens !== null || numPromptTokens === 1) return false;
  return leader.slot < 0 || leader.numStoredTokens < numPromptTokens - 1;
}

/** The hit with which a sequence can come in and `numKept` blocks stay free; null when too few are. */
export function fitHit(sequence: Sequence, blocks: BlockManager, isCaching: boolean, numKept: number): PrefixHit | null {
  const hit = findHit(sequence, blocks, isCaching);
  const numFree = blocks.numFreeBlocks - numKept;
  const numTaken = (shared: readonly number[]) => blocks.numBlocksFor(sequence.numTokens) - shared.length + blocks.countFree(shared);
  if (hit.numTokens % blocks.blockSize === 0) return numTaken(hit.blocks) <= numFree ? hit : null;
  if (numTaken(hit.blocks) + 1 <= numFree) return hit;
  // Without the block that would have to be copied before it is written.
  const whole = hit.blocks.slice(0, -1);
  return numTaken(whole) <= numFree ? { blocks: whole, numTokens: whole.length * blocks.blockSize } : null;
}

/** At most the text less one token: the last must be computed for its logits. Rows that are handed back are all computed. */
function findHit(sequence: Sequence, blocks: BlockManager, isCaching: boolean): PrefixHit {
  const { leader, numReturnedRows, numRowsToReturn } = sequence;
  const numTokens = sequence.numTokens - 1;
  if (numReturnedRows < numRowsToReturn) return nothing;
  if (leader !== null && leader.slot >= 0 && sequence.numHitTokens === null) {
    return { blocks: leader.blockTable.slice(0, blocks.numBlocksFor(numTokens)), numTokens };
  }
  if (!isCaching) return nothing;
  const found = blocks.find(sequence.blockNames(blocks.blockSize));
  return { blocks: found, numTokens: Math.min(found.length * blocks.blockSize, numTokens) };
}
