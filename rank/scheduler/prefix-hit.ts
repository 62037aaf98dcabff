/** Which cached blocks a waiting sequence can start from. Pure: acquires nothing. */
import type { BlockManager } from '../kv/block-manager.ts';
import type { Sequence } from './sequence.ts';

/** The cached prefix of a sequence. */
export interface PrefixHit {
  readonly blocks: readonly number[];
  /** Cached tokens; fewer than `blocks` hold when the last block must be copied and written. */
  readonly numTokens: number;
}

const nothing: PrefixHit = { blocks: [], numTokens: 0 };

/** Whether a sample must wait until sample 0 has computed their common prompt, less its last token. */
export function waitsForLeader({ leader, numHitTokens, numPromptTokens }: Sequence): boolean {
  if (leader === null || leader.isDone || numHitTokens !== null || numPromptTokens === 1) return false;
  return leader.slot < 0 || leader.numStoredTokens < numPromptTokens - 1;
}

/** The hit that admits a sequence and leaves `numKept` blocks free; null when too few are free. */
export function fitHit(sequence: Sequence, blocks: BlockManager, isCaching: boolean, numKept: number): PrefixHit | null {
  const hit = findHit(sequence, blocks, isCaching);
  const numFree = blocks.numFreeBlocks - numKept;
  const numTaken = (shared: readonly number[]) => blocks.numBlocksFor(sequence.numTokens) - shared.length + blocks.countFree(shared);
  if (hit.numTokens % blocks.blockSize === 0) return numTaken(hit.blocks) <= numFree ? hit : null;
  if (numTaken(hit.blocks) + 1 <= numFree) return hit;
  // Retry without the partial block, whose copy costs one more.
  const whole = hit.blocks.slice(0, -1);
  return numTaken(whole) <= numFree ? { blocks: whole, numTokens: whole.length * blocks.blockSize } : null;
}

/** At most `numTokens - 1`: the last token is computed for its logits. None while prompt rows must be returned, as for hidden states. */
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
