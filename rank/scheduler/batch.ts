/** What a step runs: shares of sequences, as the scheduler dealt them out. */
import type { BlockCopy } from '../kv/block-manager.ts';
import type { Drafting, Sequence } from './sequence.ts';

/** A sequence's share of one step: its tokens `[start, start + numTokens)`. */
export interface ScheduledSequence {
  readonly sequence: Sequence;
  readonly start: number;
  readonly numTokens: number;
  /** Whether the step ends with a new token for this sequence. */
  readonly samples: boolean;
  /** First row of which something is handed back; see `numRowsReturned`. */
  readonly firstRow: number;
  /** Whether the plan must load the slot first. */
  readonly admits: boolean;
  /** Whether the first token is the slot's newest, whose value may not be known here yet. The others, if any, are drafts. */
  readonly fromSlot: boolean;
  /** Drafts after it, and what the draft model does; null without either. */
  readonly drafting: Drafting | null;
  /** The block that must be copied before anything is written. */
  readonly copy: BlockCopy | null;
}

export type ScheduledBatch = readonly ScheduledSequence[];

/** Rows `firstRow …` of a share whose logits, or the log-probability of the token after them, are handed back. */
export function numRowsReturned({
  sequence,
  start,
  numTokens,
  firstRow,
}: Pick<ScheduledSequence, 'sequence' | 'start' | 'numTokens' | 'firstRow'>): number {
  return Math.max(0, Math.min(start + numTokens, sequence.numRowsToReturn) - firstRow);
}
