/** What the scheduler asks of whoever decides what is drafted. */
import type { Drafting, ScheduledSequence } from '../scheduled-batch.ts';
import type { Sequence } from '../sequence.ts';

/** What a step still has room for. */
export interface DraftRoom {
  /** Tokens of the model's pass, besides one for each sequence. */
  readonly numTokens: number;
  /** Rows of the LM head, besides one for each sequence. */
  readonly numLogitRows: number;
}

/** Decides what each step drafts, and learns from what became of it. Pure: no clock, no I/O. */
export interface Drafter {
  /** Drafts for sequences that decode; `wait` = leave the sequence out until the tokens that are under way are known. */
  choose(sequences: readonly Sequence[], room: DraftRoom): ReadonlyMap<Sequence, Drafting | 'wait'>;
  /** A step of a decoding sequence is back, of whose drafts so many stayed. */
  committed(share: ScheduledSequence, numAccepted: number): void;
  /** Nothing more comes of a sequence. */
  ended(sequence: Sequence): void;
}
