/** Takes a step's result apart: what each scheduled sequence got out of it. */
import { NdsError } from '../../protocol/errors.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import type { TokenLogprobs } from '../engine/messages.ts';
import { numRowsReturned, type ScheduledBatch, type ScheduledSequence } from './batch.ts';
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
}

const none: readonly TokenLogprobs[] = [];
const nothing: SequenceResult = { tokenIds: [], logprobs: null, logits: null, promptLogprobs: none };

/**
 * Results of the sequences of a batch, in its order.
 * @throws NdsError `ERR_PROTOCOL` when the result is not one of this batch.
 */
export function readResult(batch: ScheduledBatch, result: StepResult, sizes: VocabSizes): SequenceResult[] {
  const reader = new ResultReader(result, sizes);
  return batch.map((scheduled, i) => reader.next(scheduled, i));
}

/** Without the rows that were handed back before: a preempted sequence may compute some a second time. */
export function freshRows({ sequence, firstRow }: ScheduledSequence, result: SequenceResult, { vocabSize }: VocabSizes): SequenceResult {
  const numStale = Math.max(0, sequence.numReturnedRows - firstRow);
  const logits = result.logits?.subarray(numStale * vocabSize) ?? null;
  const promptLogprobs = result.promptLogprobs.slice(numStale);
  sequence.numReturnedRows += (logits?.length ?? 0) / vocabSize + promptLogprobs.length;
  return { ...result, logits, promptLogprobs };
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
    const numRows = numRowsReturned(scheduled);
    if (sequence.request.type === 'logits') return { ...nothing, logits: this.#takeLogits(numRows) };
    const { numLogprobs, numPromptLogprobs } = paramsOf(sequence);
    const drawn: number[] = [];
    for (let j = 0; j < count; j++) drawn.push(tokenIds[this.#numTokens++] as number);
    return {
      tokenIds: drawn,
      logits: null,
      promptLogprobs: numRows === 0 ? none : Array.from({ length: numRows }, () => this.#takeLogprobs(numPromptLogprobs ?? 0)),
      logprobs: count > 0 && numLogprobs !== null ? Array.from({ length: count }, () => this.#takeLogprobs(numLogprobs)) : null,
    };
  }

  #takeLogits(numRows: number): Float32Array {
    const begin = this.#numLogits;
    this.#numLogits += numRows * this.#sizes.vocabSize;
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
