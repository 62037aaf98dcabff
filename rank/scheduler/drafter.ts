/** Interface between the scheduler and the drafting policy. */
import type { ScheduledBatch } from './batch.ts';
import type { StepTimings } from './result-reader.ts';
import type { Drafting, Sequence } from './sequence.ts';

/** A step's budget for drafts, after the share reserved for prefills; and the prefill backlog. */
export interface DraftRoom {
  /** Token budget of the target's pass, beyond one token per decoding sequence. */
  readonly numTokens: number;
  /** LM-head rows, beyond one per decoding sequence. */
  readonly numLogitRows: number;
  /** Prefill tokens still to compute, of running and waiting sequences. */
  numPromptTokens(): number;
}

/** Chooses each step's drafts; learns from their acceptance and timings. Pure: no clock, no I/O. */
export interface Drafter {
  /** Drafts per decoding sequence; `wait` = skip the sequence until its tokens in flight are known. */
  choose(sequences: readonly Sequence[], room: DraftRoom): ReadonlyMap<Sequence, Drafting | 'wait'>;
  /** The last choice went into this step; without this call it is discarded. */
  planned(batch: ScheduledBatch): void;
  /** Reports a step's result. `numAccepted`: `[numSeqs]`, null where the sequence is done or did not decode. */
  committed(batch: ScheduledBatch, numAccepted: readonly (number | null)[], timings: StepTimings): void;
  /** Reports that a sequence has finished or was aborted. */
  ended(sequence: Sequence): void;
  /** Reports that every sequence and every step in flight is gone. */
  lost(): void;
}
