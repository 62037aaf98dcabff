/** What the scheduler asks of whoever decides what is drafted. */
import type { ScheduledBatch } from './batch.ts';
import type { StepTimings } from './result-reader.ts';
import type { Drafting, Sequence } from './sequence.ts';

/** What a step has room for, less what prompts that wait are to have of it; and what else it will do. */
export interface DraftRoom {
  /** Tokens of the model's pass, besides one for each sequence. */
  readonly numTokens: number;
  /** Rows of the LM head, besides one for each sequence. */
  readonly numLogitRows: number;
  /** Tokens of prompts that wait to be computed. */
  numPromptTokens(): number;
}

/** Decides what each step drafts, and learns from what became of it. Pure: no clock, no I/O. */
export interface Drafter {
  /** Drafts for sequences that decode; `wait` = leave the sequence out until the tokens that are under way are known. */
  choose(sequences: readonly Sequence[], room: DraftRoom): ReadonlyMap<Sequence, Drafting | 'wait'>;
  /** What was chosen last is part of this step; without a call it is forgotten. */
  planned(batch: ScheduledBatch): void;
  /** A step is back. `numAccepted`: of each share's drafts, null where the sequence is gone or did not decode. */
  committed(batch: ScheduledBatch, numAccepted: readonly (number | null)[], timings: StepTimings): void;
  /** Nothing more comes of a sequence. */
  ended(sequence: Sequence): void;
}
