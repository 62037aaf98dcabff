/** Splits a step's result by sequence. */
import { NdsError } from '../../protocol/errors.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import { numRowsReturned, type ScheduledBatch, type ScheduledSequence } from './batch.ts';
import type { Drafted, FinishReason, TokenLogprobs } from './request.ts';
import type { Sequence } from './sequence.ts';
import { paramsOf } from './slot-parameters.ts';

/** Widths of returned rows: the vocabulary, the tokens of it that can be drawn, and the hidden state. */
export interface RowSizes {
  readonly vocabSize: number;
  readonly sampleVocabSize: number;
  readonly hiddenSize: number;
}

/** One sequence's part of a step's result. */
export interface SequenceResult {
  /** Accepted drafts, then one token; empty for an unfinished prefill. */
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]`; null unless requested. */
  readonly logprobs: readonly TokenLogprobs[] | null;
  /** `[numRows, vocabSize]` raw logits or `[numRows, hiddenSize]` hidden states of the returned rows; null unless requested. */
  readonly rows: Float32Array | null;
  /** One per returned row, of the prompt token after it. */
  readonly promptLogprobs: readonly TokenLogprobs[];
  /** Rows in `rows` or `promptLogprobs`. */
  readonly numRows: number;
}

/** A step's result, split by sequence. */
export interface BatchResult {
  /** `[numSeqs]`, in batch order. */
  readonly sequences: readonly SequenceResult[];
  readonly timings: StepTimings;
}

/** When the executor ran the step; seconds spent in both models, and in the draft model alone. */
export type StepTimings = Pick<StepResult, 'startSeconds' | 'endSeconds' | 'executeSeconds' | 'draftSeconds'>;

/** A step's output for one sequence, on its way to the caller. */
export interface SequenceUpdate extends SequenceResult {
  readonly sequence: Sequence;
  readonly finishReason: FinishReason | null;
  readonly stopTokenId: number | null;
  /** Null without speculation, and where the sequence did not decode. */
  readonly drafted: Drafted | null;
  /** Whether this is the sequence's last update. */
  readonly finished: boolean;
}

const none: readonly TokenLogprobs[] = [];
const nothing: SequenceResult = { tokenIds: [], logprobs: null, rows: null, promptLogprobs: none, numRows: 0 };

/**
 * Splits a result by the sequences of its batch. Rows returned before are dropped: a preempted sequence may recompute
 * some.
 * @throws NdsError `ERR_PROTOCOL` when the result is not one of this batch.
 */
export function readResult(batch: ScheduledBatch, result: StepResult, sizes: RowSizes): BatchResult {
  const reader = new ResultReader(result, sizes);
  return { sequences: batch.map((scheduled, i) => reader.next(scheduled, i)), timings: result };
}

class ResultReader {
  readonly #result: StepResult;
  readonly #sizes: RowSizes;
  #numTokens = 0;
  #numLogits = 0;
  #numHidden = 0;
  #numLogprobRows = 0;
  #numLogprobs = 0;

  constructor(result: StepResult, sizes: RowSizes) {
    this.#result = result;
    this.#sizes = sizes;
  }

  next(scheduled: ScheduledSequence, i: number): SequenceResult {
    const { sequence, samples, drafting } = scheduled;
    const { numTokens, tokenIds } = this.#result;
    const count = numTokens[i] as number;
    const most = Number(samples) + (drafting?.numDrafts ?? 0);
    if (count < Number(samples) || count > most) {
      throw new NdsError(
        'ERR_PROTOCOL',
        `Expected ${Number(samples)} to ${most} tokens for sequence ${i} of the step but received ${count}`,
      );
    }
    const numComputed = numRowsReturned(scheduled);
    const numStale = Math.min(numComputed, Math.max(0, sequence.numReturnedRows - scheduled.firstRow));
    const numRows = numComputed - numStale;
    if (sequence.request.type === 'logits') return { ...nothing, rows: this.#takeLogits(numComputed, numStale), numRows };
    if (sequence.request.type === 'hidden') return { ...nothing, rows: this.#takeHidden(numComputed, numStale), numRows };
    const { numLogprobs, numPromptLogprobs } = paramsOf(sequence);
    const drawn: number[] = [];
    for (let j = 0; j < count; j++) drawn.push(tokenIds[this.#numTokens++] as number);
    return {
      tokenIds: drawn,
      rows: null,
      promptLogprobs:
        numComputed === 0 ? none : Array.from({ length: numComputed }, () => this.#takeLogprobs(numPromptLogprobs ?? 0)).slice(numStale),
      numRows,
      logprobs: count > 0 && numLogprobs !== null ? Array.from({ length: count }, () => this.#takeLogprobs(numLogprobs)) : null,
    };
  }

  #takeLogits(numRows: number, numStale: number): Float32Array {
    const { vocabSize } = this.#sizes;
    const begin = this.#numLogits + numStale * vocabSize;
    this.#numLogits += numRows * vocabSize;
    return this.#result.logits.subarray(begin, this.#numLogits);
  }

  #takeHidden(numRows: number, numStale: number): Float32Array {
    const { hiddenSize } = this.#sizes;
    const begin = this.#numHidden + numStale * hiddenSize;
    this.#numHidden += numRows * hiddenSize;
    if (this.#numHidden > this.#result.hidden.length) {
      throw new NdsError('ERR_PROTOCOL', `Expected ${this.#numHidden} values of hidden states but received ${this.#result.hidden.length}`);
    }
    return this.#result.hidden.subarray(begin, this.#numHidden);
  }

  #takeLogprobs(numLikeliest: number): TokenLogprobs {
    const begin = this.#numLogprobs;
    this.#numLogprobs += 1 + Math.min(numLikeliest, this.#sizes.sampleVocabSize);
    const { logprobIds, logprobs, logprobRanks } = this.#result;
    const rank = logprobRanks[this.#numLogprobRows++];
    if (rank === undefined || this.#numLogprobs > Math.min(logprobIds.length, logprobs.length)) {
      throw new NdsError('ERR_PROTOCOL', 'Expected log-probabilities of every row that wants them but received too few');
    }
    return {
      tokenIds: Array.from(logprobIds.subarray(begin, this.#numLogprobs)),
      logprobs: Array.from(logprobs.subarray(begin, this.#numLogprobs)),
      rank,
    };
  }
}
