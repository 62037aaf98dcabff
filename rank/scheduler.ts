/** What to run in the next step: first come, first served, decodes before prefills, the newest sequence preempted when blocks run out. */
import { NdsError } from '../protocol/errors.ts';
import type { StepResult } from '../protocol/step-result.ts';
import { BlockManager } from './block-manager.ts';
import type { EngineRequest, FinishReason } from './engine-messages.ts';
import type { KvLog } from './kv-log.ts';
import { Sequence } from './sequence.ts';

/** The limits of a loaded model. */
export interface SchedulerLimits {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  /** Tokens of one step; at least `maxNumSeqs`, so that every running sequence can decode. */
  readonly maxNumBatchedTokens: number;
  /** Rows of one step that go through the LM head; at least `maxNumSeqs`. */
  readonly maxNumLogitRows: number;
}

/** A sequence's share of one step: its tokens `[start, start + numTokens)`. */
export interface ScheduledSequence {
  readonly sequence: Sequence;
  readonly start: number;
  readonly numTokens: number;
  /** Whether the step ends with a new token for this sequence. */
  readonly samples: boolean;
  /** Whether the logits of these tokens are handed back. */
  readonly returnsLogits: boolean;
  /** Whether the plan must load the slot first. */
  readonly admits: boolean;
  /** Whether the one token is the slot's newest, whose value may not be known here yet. */
  readonly fromSlot: boolean;
}

export type ScheduledBatch = readonly ScheduledSequence[];

/** What a step brought for one sequence. */
export interface SequenceUpdate {
  readonly requestId: number;
  readonly tokenIds: readonly number[];
  readonly finishReason: FinishReason | null;
  readonly logits: Float32Array | null;
  readonly finished: boolean;
}

/** Room that is left in the step being scheduled. */
interface StepBudget {
  readonly batch: ScheduledSequence[];
  numTokens: number;
  numLogitRows: number;
}

/** Owns the sequences, the slots and the blocks. `waiting` after `running` is always in order of arrival. */
export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #blocks: BlockManager;
  readonly #log: KvLog | null;
  readonly #freeSlots: number[];
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  #numPreemptions = 0;

  constructor(limits: SchedulerLimits, log: KvLog | null = null) {
    this.#limits = limits;
    this.#log = log;
    this.#blocks = new BlockManager(limits.numBlocks, limits.blockSize, log);
    this.#freeSlots = Array.from({ length: limits.maxNumSeqs }, (_, i) => limits.maxNumSeqs - 1 - i);
  }

  get hasWork(): boolean {
    return this.#running.length + this.#waiting.length > 0;
  }

  /** Where everything is right now. */
  get counts() {
    return {
      numRunning: this.#running.length,
      numWaiting: this.#waiting.length,
      numPreemptions: this.#numPreemptions,
      numFreeBlocks: this.#blocks.numFreeBlocks,
      numBlocks: this.#blocks.numBlocks,
      numFreeSlots: this.#freeSlots.length,
    };
  }

  /** Queues a request. @throws NdsError `ERR_REQUEST` when it could not finish even with the engine to itself. */
  add(request: EngineRequest): void {
    const { maxModelLen, numBlocks, blockSize } = this.#limits;
    const numPromptTokens = request.promptTokenIds.length;
    const refuse = (expected: string, received: string) =>
      new NdsError('ERR_REQUEST', `Expected ${expected} for request ${request.requestId} but received ${received}`);
    if (numPromptTokens === 0) throw refuse('at least one prompt token', 'an empty prompt');
    const longest = request.type === 'generate' ? maxModelLen - 1 : maxModelLen;
    if (numPromptTokens > longest) {
      throw refuse(`a prompt of at most ${longest} tokens (maxModelLen is ${maxModelLen})`, `${numPromptTokens} tokens`);
    }
    const sequence = new Sequence(request, maxModelLen);
    // The last token generated is never cached.
    const numCached = request.type === 'generate' ? sequence.maxNumTokens - 1 : numPromptTokens;
    if (this.#blocks.numBlocksFor(numCached) > numBlocks) {
      const held = `all KV blocks together hold ${numBlocks * blockSize}; raise kvCacheMemoryBytes`;
      throw refuse(
        `prompt and maxTokens that need at most ${numBlocks * blockSize + 1} tokens (${held})`,
        `${sequence.maxNumTokens} tokens`,
      );
    }
    this.#waiting.push(sequence);
  }

  /** Drops a request, if it is still here. Its blocks and its slot serve the next plan that is built. */
  abort(requestId: number): void {
    const sequence = [...this.#running, ...this.#waiting].find(({ request }) => request.requestId === requestId);
    if (sequence !== undefined) this.#finish(sequence);
  }

  /** The next step, or null when nothing can run before a step in flight is back. */
  schedule(): ScheduledBatch | null {
    const { maxNumBatchedTokens, maxNumLogitRows } = this.#limits;
    const step: StepBudget = { batch: [], numTokens: maxNumBatchedTokens, numLogitRows: maxNumLogitRows };
    this.#scheduleDecodes(step);
    for (const sequence of this.#running) {
      if (sequence.numTokensToCompute > 0 && !isDecode(sequence)) this.#take(sequence, step);
    }
    this.#admit(step);
    return step.batch.length > 0 ? step.batch : null;
  }

  /** Takes in what a step produced: appends tokens, ends sequences, frees what they held. */
  commit(batch: ScheduledBatch, result: StepResult, vocabSize: number): SequenceUpdate[] {
    const updates: SequenceUpdate[] = [];
    let nextToken = 0;
    let nextRow = 0;
    batch.forEach((scheduled, i) => {
      const { sequence, numTokens, samples, returnsLogits } = scheduled;
      if (result.numTokens[i] !== (samples ? 1 : 0)) {
        throw new NdsError(
          'ERR_PROTOCOL',
          `Expected ${samples ? 1 : 0} tokens for sequence ${i} of the step but received ${result.numTokens[i]}`,
        );
      }
      const tokenId = samples ? (result.tokenIds[nextToken++] as number) : null;
      const firstRow = nextRow;
      if (returnsLogits) nextRow += numTokens;
      if (sequence.isDone) return;
      if (tokenId !== null) updates.push(this.#commitToken(sequence, tokenId));
      if (returnsLogits) updates.push(this.#commitLogits(scheduled, result.logits.subarray(firstRow * vocabSize, nextRow * vocabSize)));
    });
    return updates;
  }

  /** One token for every sequence whose prefill is done, oldest first. */
  #scheduleDecodes(step: StepBudget): void {
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i] as Sequence;
      if (!isDecode(sequence)) continue;
      while (!this.#blocks.reserve(sequence, sequence.numTokens)) {
        // Everything scheduled so far is older than the newest, so a victim is never part of this step.
        if (this.#preemptNewest() === sequence) return;
      }
      this.#take(sequence, step);
    }
  }

  /** Lets waiting sequences in, in order, while tokens, slots and blocks last. */
  #admit(step: StepBudget): void {
    while (this.#waiting.length > 0 && step.numTokens > 0 && this.#freeSlots.length > 0) {
      const sequence = this.#waiting[0] as Sequence;
      // A preempted sequence waits for the value of its last token before it is computed again.
      if (sequence.numPendingTokens > 0) return;
      // Every running sequence keeps the chance to grow by a block, or the newcomer would be preempted at once.
      const numBlocks = this.#blocks.numBlocksFor(sequence.numTokens);
      if (numBlocks + this.#running.length > this.#blocks.numFreeBlocks) return;
      if (!this.#take(sequence, step)) return;
      this.#blocks.reserve(sequence, sequence.numTokens);
      sequence.slot = this.#freeSlots.pop() as number;
      this.#running.push(this.#waiting.shift() as Sequence);
    }
  }

  /** Gives a sequence as much of the step as it can use; false when that is nothing. */
  #take(sequence: Sequence, step: StepBudget): boolean {
    const returnsLogits = sequence.request.type === 'logits';
    const start = sequence.numCachedTokens;
    let numTokens = Math.min(sequence.numTokensToCompute, step.numTokens);
    if (returnsLogits) numTokens = Math.min(numTokens, step.numLogitRows);
    const reachesEnd = numTokens === sequence.numTokensToCompute;
    // Without a row for its logits the last token must wait for the next step.
    if (reachesEnd && step.numLogitRows === 0) numTokens--;
    if (numTokens <= 0) return false;
    const samples = !returnsLogits && reachesEnd && step.numLogitRows > 0;
    step.batch.push({
      sequence,
      start,
      numTokens,
      samples,
      returnsLogits,
      admits: !sequence.isAdmitted,
      fromSlot: sequence.isNewestInSlot,
    });
    step.numTokens -= numTokens;
    step.numLogitRows -= returnsLogits ? numTokens : samples ? 1 : 0;
    sequence.isAdmitted = true;
    sequence.numCachedTokens += numTokens;
    sequence.isNewestInSlot = samples;
    if (samples) sequence.numPendingTokens++;
    return true;
  }

  /** Sends the newest running sequence back to the head of the queue, to be computed again from its tokens. */
  #preemptNewest(): Sequence {
    const sequence = this.#running.pop();
    if (sequence === undefined) throw new NdsError('ERR_INTERNAL', 'Expected a running sequence to preempt but there is none');
    this.#log?.preempt(sequence.request.requestId, sequence.numTokens);
    this.#free(sequence);
    sequence.reset();
    this.#waiting.unshift(sequence);
    this.#numPreemptions++;
    return sequence;
  }

  #commitToken(sequence: Sequence, tokenId: number): SequenceUpdate {
    const finishReason = sequence.append(tokenId);
    if (finishReason !== null) this.#finish(sequence);
    return { requestId: sequence.request.requestId, tokenIds: [tokenId], finishReason, logits: null, finished: finishReason !== null };
  }

  /** A preempted sequence computes rows a second time; those were handed back before. */
  #commitLogits({ sequence, start, numTokens }: ScheduledSequence, logits: Float32Array): SequenceUpdate {
    const vocabSize = logits.length / numTokens;
    const fresh = logits.subarray(Math.max(0, sequence.numReturnedRows - start) * vocabSize);
    sequence.numReturnedRows = Math.max(sequence.numReturnedRows, start + numTokens);
    const finished = sequence.numReturnedRows === sequence.tokenIds.length;
    if (finished) this.#finish(sequence);
    return { requestId: sequence.request.requestId, tokenIds: [], finishReason: null, logits: fresh, finished };
  }

  #finish(sequence: Sequence): void {
    sequence.isDone = true;
    for (const queue of [this.#running, this.#waiting]) {
      const index = queue.indexOf(sequence);
      if (index >= 0) queue.splice(index, 1);
    }
    this.#free(sequence);
  }

  #free(sequence: Sequence): void {
    this.#blocks.release(sequence);
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    sequence.slot = -1;
  }
}

function isDecode(sequence: Sequence): boolean {
  return sequence.numTokensToCompute === 1 && sequence.isNewestInSlot;
}
