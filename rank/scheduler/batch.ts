/** A batch: which tokens of which sequences one step runs. */
import type { BlockCopy } from '../kv/block-manager.ts';
import type { Drafting, Sequence } from './sequence.ts';

/** A sequence's share of one step: its tokens `[start, start + numTokens)`. */
export interface ScheduledSequence {
  readonly sequence: Sequence;
  readonly start: number;
  readonly numTokens: number;
  /** Whether the step samples a new token for this sequence. */
  readonly samples: boolean;
  /** First row whose logits, hidden state or log-probability is returned; see `numRowsReturned`. */
  readonly firstRow: number;
  /** Whether the plan loads the slot first. */
  readonly admits: boolean;
  /** Whether the first token is the slot's newest, its value perhaps still in flight. Any others are drafts. */
  readonly fromSlot: boolean;
  /** Drafts after that token and the draft model's part; null without either. */
  readonly drafting: Drafting | null;
  /** Copy-on-write of a block before the step writes; null = none. */
  readonly copy: BlockCopy | null;
}

export type ScheduledBatch = readonly ScheduledSequence[];

/** Number of rows from `firstRow` on whose logits, hidden states or next token's log-probabilities are returned. */
export function numRowsReturned({
  sequence,
  start,
  numTokens,
  firstRow,
}: Pick<ScheduledSequence, 'sequence' | 'start' | 'numTokens' | 'firstRow'>): number {
  return Math.max(0, Math.min(start + numTokens, sequence.numRowsToReturn) - firstRow);
}

/** How many of the rows returned pass through the LM head: hidden states are taken before it. */
export function numLogitRowsReturned(share: Pick<ScheduledSequence, 'sequence' | 'start' | 'numTokens' | 'firstRow'>): number {
  return share.sequence.request.type === 'hidden' ? 0 : numRowsReturned(share);
}
