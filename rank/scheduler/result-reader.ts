/** Takes a step's result apart: what each scheduled sequence got out of it. */
import { NdsError } from '../../protocol/errors.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import { numRowsReturned, type ScheduledBatch, type ScheduledSequence } from './batch.ts';
import type { Drafted, FinishReason, TokenLogprobs } from './request.ts';
import type { Sequence } from './sequence.ts';
import { paramsOf } from './slot-parameters.ts';

/** Sizes of the model's vocabulary: all rows of its LM head, and the tokens that can be drawn. */
export interface VocabSizes {
  readonly vocabSize: number;
  readonly sampleVocabSize: number;
}

/** What one sequence got. */
export interface SequenceResult {
  /** One, and the drafts before it that stayed; empty for an unfinished prefill. */
  readonly tokenIds: readonly number[];
  /** Of each of them, when they are asked for. */
  readonly logprobs: readonly TokenLogprobs[] | null;
  /** `[numRows, vocabSize]` raw logits of the rows that are handed back; null for requests that want none. */
  readonly logits: Float32Array | null;
  /** Of the prompt tokens after the rows that are handed back. */
  readonly promptLogprobs: readonly TokenLogprobs[];
  /** Rows in `logits` or `promptLogprobs`. */
  readonly numRows: number;
}

/** A step's result, taken apart. */
export interface BatchResult {
  /** `[numSeqs]` in the order of the batch. */
  readonly sequences: readonly SequenceResult[];
  readonly timings: StepTimings;
}

/** When the executor ran the step, and for how many seconds in both models and in the draft model alone. */
export type StepTimings = Pick<StepResult, 'startSeconds' | 'endSeconds' | 'executeSeconds' | 'draftSeconds'>;

/** What a step did for one sequence, on its way to whoever waits for it. */
export interface SequenceUpdate extends Omit<SequenceResult, 'numRows'> {
  readonly sequence: Sequence;
  readonly finishReason: FinishReason | null;
  readonly stopTokenId: number | null;
  /** What the step drafted; null without speculation, and for the first token. */
  readonly drafted: Drafted | null;
  /** Whether nothing more comes of this sequence. */
  readonly finished: boolean;
}

const none: readonly TokenLogprobs[] = [];
const nothing: SequenceResult = { tokenIds: [], logprobs: null, logits: null, promptLogprobs: none, numRows: 0 };

/**
 * What the sequences of a batch got. Rows that were handed back before are left out: a preempted sequence may compute some
 * a second time.
 * @throws NdsError `ERR_PROTOCOL` when the result is not one of this batch.
 */
export function readResult(batch: ScheduledBatch, result: StepResult, sizes: VocabSizes): BatchResult {
  const reader = new ResultReader(result, sizes);
  return { sequences: batch.map((scheduled, i) => reader.next(scheduled, i)), timings: result };
}

class ResultReader {
  readonly #result: StepResult;
  readonly #sizes: VocabSizes;
  #numTokens = 0;
  #numLogits = 0;
  #numLogprobRows = 0;
  #numLogprobs = 0;

  constructor(result: StepResult, sizes: VocabSizes) {
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
    if (sequence.request.type === 'logits') return { ...nothing, logits: this.#takeLogits(numComputed, numStale), numRows };
    const { numLogprobs, numPromptLogprobs } = paramsOf(sequence);
    const drawn: number[] = [];
    for (let j = 0; j < count; j++) drawn.push(tokenIds[this.#numTokens++] as number);
    return {
      tokenIds: drawn,
      logits: null,
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
