/** What to run in the next step: who, with how many tokens, and who gives way when blocks run out. */
import { NdsError } from '../protocol/errors.ts';
import type { StepResult } from '../protocol/step-result.ts';
import { BlockManager } from './block-manager.ts';
import type { EngineRequest, FinishReason } from './engine-messages.ts';
import type { KvLog } from './kv-log.ts';
import { readResult, type SequenceResult, type VocabSizes } from './result-reader.ts';
import { numRowsReturned, type ScheduledBatch, type ScheduledSequence } from './scheduled-batch.ts';
import { Sequence } from './sequence.ts';

/** The limits of a loaded model, and how its engine deals with them. */
export interface SchedulerLimits {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  /** Tokens of one step; at least `maxNumSeqs`, so that every running sequence can decode. */
  readonly maxNumBatchedTokens: number;
  /** Rows of one step that go through the LM head; at least `maxNumSeqs`. */
  readonly maxNumLogitRows: number;
  /** Whether blocks of finished and running sequences serve others whose text begins alike. */
  readonly enablePrefixCaching: boolean;
  /** `fcfs` = first come, first served; `priority` = lower numbers first, then first come. */
  readonly schedulingPolicy: 'fcfs' | 'priority';
  /** Prompt tokens of one sequence in a step as long as others want the room; 0 = as many as there is room for. */
  readonly longPrefillTokenThreshold: number;
}

/** What a step brought for one sequence. */
export interface SequenceUpdate extends SequenceResult {
  readonly sequence: Sequence;
  readonly finishReason: FinishReason | null;
  readonly stopTokenId: number | null;
  /** Whether nothing more comes of this sequence. */
  readonly finished: boolean;
}

/** A share while the step is being put together: a prefill may get what others leave. */
type Share = { -readonly [Key in keyof ScheduledSequence]: ScheduledSequence[Key] };

/** Room that is left in the step being scheduled, and who got what. */
interface StepBudget {
  readonly shares: Map<Sequence, Share>;
  numTokens: number;
  numLogitRows: number;
}

/** Cached blocks with which a sequence can begin. */
interface PrefixHit {
  readonly blocks: readonly number[];
  readonly numTokens: number;
}

/** Owns the sequences, the slots and the blocks. Both queues are in order: the first to be served comes first. */
export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #blocks: BlockManager;
  readonly #freeSlots: number[];
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #log: KvLog | null;
  #numArrivals = 0;
  #numPreemptions = 0;
  #numPrefixQueries = 0;
  #numPrefixHits = 0;

  constructor(limits: SchedulerLimits, log: KvLog | null = null) {
    this.#limits = limits;
    this.#log = log;
    this.#blocks = new BlockManager(limits.numBlocks, limits.blockSize, log);
    this.#freeSlots = Array.from({ length: limits.maxNumSeqs }, (_, i) => limits.maxNumSeqs - 1 - i);
  }

  get hasWork(): boolean {
    return this.#running.length + this.#waiting.length > 0;
  }

  /** Where everything is right now, and how often what happened. */
  get counts() {
    return {
      numRunning: this.#running.length,
      numWaiting: this.#waiting.length,
      numPreemptions: this.#numPreemptions,
      numPrefixQueryTokens: this.#numPrefixQueries,
      numPrefixHitTokens: this.#numPrefixHits,
      numFreeBlocks: this.#blocks.numFreeBlocks,
      numCachedBlocks: this.#blocks.numNamedBlocks,
      numEvictions: this.#blocks.numEvictions,
      numBlocks: this.#blocks.numBlocks,
      numFreeSlots: this.#freeSlots.length,
    };
  }

  /** Queues a request. @throws NdsError `ERR_REQUEST` when it could not finish even with the engine to itself. */
  add(request: EngineRequest): void {
    const leader = new Sequence(request, this.#limits.maxModelLen, this.#numArrivals++);
    this.#checkFits(leader);
    this.#enqueue(this.#waiting, leader);
    const numSamples = request.type === 'generate' ? request.n : 1;
    for (let index = 1; index < numSamples; index++) {
      this.#enqueue(this.#waiting, new Sequence(request, this.#limits.maxModelLen, this.#numArrivals++, index, leader));
    }
  }

  /** Drops a request, or one sample of it, if it is still here. Its blocks and its slot serve the next plan that is built. */
  abort(requestId: number, index: number | null = null): void {
    const isMeant = (sequence: Sequence) => sequence.request.requestId === requestId && (index === null || sequence.index === index);
    for (const sequence of [...this.#running, ...this.#waiting].filter(isMeant)) this.#finish(sequence);
  }

  /** The next step, or null when nothing can run before a step in flight is back. */
  schedule(): ScheduledBatch | null {
    const { maxNumBatchedTokens, maxNumLogitRows, longPrefillTokenThreshold } = this.#limits;
    const step: StepBudget = { shares: new Map(), numTokens: maxNumBatchedTokens, numLogitRows: maxNumLogitRows };
    for (const sequence of this.#running) sequence.numStoredTokens = sequence.numCachedTokens;
    if (this.#limits.schedulingPolicy === 'priority') this.#makeWay();
    this.#scheduleDecodes(step);
    const most = longPrefillTokenThreshold || maxNumBatchedTokens;
    this.#schedulePrefills(step, most);
    this.#admit(step, most);
    // What nobody else wanted.
    if (most < maxNumBatchedTokens) this.#schedulePrefills(step, maxNumBatchedTokens);
    for (const sequence of step.shares.keys()) this.#nameBlocks(sequence);
    return step.shares.size > 0 ? [...step.shares.values()] : null;
  }

  /** Takes in what a step produced: appends tokens, ends sequences, frees what they held. */
  commit(batch: ScheduledBatch, result: StepResult, sizes: VocabSizes): SequenceUpdate[] {
    const results = readResult(batch, result, sizes);
    const updates: SequenceUpdate[] = [];
    batch.forEach((scheduled, i) => {
      if (!scheduled.sequence.isDone) updates.push(this.#commitOne(scheduled, results[i] as SequenceResult, sizes));
    });
    return updates;
  }

  #checkFits(sequence: Sequence): void {
    const { maxModelLen, numBlocks, blockSize, schedulingPolicy } = this.#limits;
    const { request, numPromptTokens } = sequence;
    const refuse = (expected: string, received: string) =>
      new NdsError('ERR_REQUEST', `Expected ${expected} for request ${request.requestId} but received ${received}`);
    if (numPromptTokens === 0) throw refuse('at least one prompt token', 'an empty prompt');
    if (request.priority !== 0 && schedulingPolicy !== 'priority') {
      throw refuse("no priority where schedulingPolicy is 'fcfs'", `priority ${request.priority}`);
    }
    const longest = request.type === 'generate' ? maxModelLen - 1 : maxModelLen;
    if (numPromptTokens > longest) {
      throw refuse(`a prompt of at most ${longest} tokens (maxModelLen is ${maxModelLen})`, `${numPromptTokens} tokens`);
    }
    // The last token generated is never cached.
    const numCached = request.type === 'generate' ? sequence.maxNumTokens - 1 : numPromptTokens;
    if (this.#blocks.numBlocksFor(numCached) > numBlocks) {
      const held = `all KV blocks together hold ${numBlocks * blockSize}; raise kvCacheMemoryBytes`;
      throw refuse(
        `prompt and maxTokens that need at most ${numBlocks * blockSize + 1} tokens (${held})`,
        `${sequence.maxNumTokens} tokens`,
      );
    }
  }

  /** Preempts sequences of lower priority, the lowest first, as long as that lets in one that waits with a higher one. */
  #makeWay(): void {
    const next = this.#waiting.find((sequence) => this.#isReady(sequence));
    if (next === undefined) return;
    const lower = this.#running.filter(({ request }) => request.priority > next.request.priority);
    const numBlocks = this.#blocks.numFreeBlocks + lower.reduce((sum, { blockTable }) => sum + blockTable.length, 0);
    if (this.#blocks.numBlocksFor(next.numTokens) + this.#running.length - lower.length > numBlocks) return;
    for (let i = 0; i < lower.length && (this.#freeSlots.length === 0 || this.#fit(next) === null); i++) this.#preemptLast();
  }

  /** One token for every sequence whose prefill is done, in order. */
  #scheduleDecodes(step: StepBudget): void {
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i] as Sequence;
      if (!sequence.isDecoding) continue;
      while (!this.#blocks.reserve(sequence, sequence.numTokens)) {
        // Everything scheduled so far comes before the last, so a victim is never part of this step.
        if (this.#preemptLast() === sequence) return;
      }
      this.#take(sequence, step, 1);
    }
  }

  #schedulePrefills(step: StepBudget, most: number): void {
    for (const sequence of this.#running) {
      if (!sequence.isDecoding) this.#take(sequence, step, this.#countTokens(sequence, sequence.numCachedTokens, step, most));
    }
  }

  /** Lets waiting sequences in, in order, while tokens, slots and blocks last. */
  #admit(step: StepBudget, most: number): void {
    for (let i = 0; i < this.#waiting.length && step.numTokens > 0 && this.#freeSlots.length > 0; ) {
      const sequence = this.#waiting[i] as Sequence;
      if (this.#waitsForLeader(sequence)) {
        i++;
        continue;
      }
      const hit = this.#isReady(sequence) ? this.#fit(sequence) : null;
      if (hit === null) return;
      const numTokens = this.#countTokens(sequence, hit.numTokens, step, most);
      if (numTokens === 0) return;
      this.#waiting.splice(i, 1);
      this.#letIn(sequence, hit);
      this.#take(sequence, step, numTokens);
    }
  }

  /** A preempted sequence waits for the value of its last token before it is computed again. */
  #isReady(sequence: Sequence): boolean {
    return sequence.numPendingTokens === 0 && !this.#waitsForLeader(sequence);
  }

  /** The other samples of a request come in when the first has computed their common prompt, less the last token. */
  #waitsForLeader({ leader, numHitTokens, numPromptTokens }: Sequence): boolean {
    if (leader === null || leader.isDone || numHitTokens !== null || numPromptTokens === 1) return false;
    return leader.slot < 0 || leader.numStoredTokens < numPromptTokens - 1;
  }

  /** The cached beginning with which a sequence may come in; null when too few blocks are free. */
  #fit(sequence: Sequence): PrefixHit | null {
    const { blockSize } = this.#limits;
    const hit = this.#findHit(sequence);
    // Every running sequence keeps the chance to grow by a block, or the newcomer would be preempted at once.
    const numFree = this.#blocks.numFreeBlocks - this.#running.length;
    const numTaken = (blocks: readonly number[]) =>
      this.#blocks.numBlocksFor(sequence.numTokens) - blocks.length + this.#blocks.countFree(blocks);
    if (hit.numTokens % blockSize === 0) return numTaken(hit.blocks) <= numFree ? hit : null;
    if (numTaken(hit.blocks) + 1 <= numFree) return hit;
    // Without the block that would have to be copied before it is written.
    const blocks = hit.blocks.slice(0, -1);
    return numTaken(blocks) <= numFree ? { blocks, numTokens: blocks.length * blockSize } : null;
  }

  /** At most the text less one token: the last must be computed for its logits. Rows that are handed back are all computed. */
  #findHit(sequence: Sequence): PrefixHit {
    const { blockSize, enablePrefixCaching } = this.#limits;
    const { leader, numReturnedRows, numRowsToReturn } = sequence;
    const numTokens = sequence.numTokens - 1;
    if (numReturnedRows < numRowsToReturn) return { blocks: [], numTokens: 0 };
    if (leader !== null && leader.slot >= 0 && sequence.numHitTokens === null) {
      return { blocks: leader.blockTable.slice(0, this.#blocks.numBlocksFor(numTokens)), numTokens };
    }
    if (!enablePrefixCaching) return { blocks: [], numTokens: 0 };
    const blocks = this.#blocks.find(sequence.blockNames(blockSize));
    return { blocks, numTokens: Math.min(blocks.length * blockSize, numTokens) };
  }

  #letIn(sequence: Sequence, hit: PrefixHit): void {
    this.#blocks.share(sequence, hit.blocks);
    this.#blocks.reserve(sequence, sequence.numTokens);
    sequence.numCachedTokens = hit.numTokens;
    if (sequence.numHitTokens === null) {
      sequence.numHitTokens = hit.numTokens;
      this.#numPrefixQueries += sequence.numPromptTokens;
      this.#numPrefixHits += hit.numTokens;
    }
    sequence.slot = this.#freeSlots.pop() as number;
    this.#enqueue(this.#running, sequence);
  }

  /** How many tokens from `start` on a sequence can use of what is left of the step, at most `most`. */
  #countTokens(sequence: Sequence, start: number, step: StepBudget, most: number): number {
    const numWanted = sequence.numTokensToCompute === 0 ? 0 : sequence.numTokens - start;
    let numTokens = Math.min(numWanted, step.numTokens, most);
    const firstRow = Math.max(start, sequence.numReturnedRows);
    const numRows = () => Math.max(0, Math.min(start + numTokens, sequence.numRowsToReturn) - firstRow);
    if (numRows() > step.numLogitRows) numTokens = firstRow + step.numLogitRows - start;
    // Without a row for its logits the last token must wait for the next step.
    const samples = sequence.request.type === 'generate' && numTokens === numWanted;
    if (samples && numRows() === step.numLogitRows) numTokens--;
    return Math.max(0, numTokens);
  }

  /** Gives a sequence its next `numTokens` tokens in this step, after those that it may have already. */
  #take(sequence: Sequence, step: StepBudget, numTokens: number): void {
    if (numTokens === 0) return;
    const start = sequence.numCachedTokens;
    const samples = sequence.request.type === 'generate' && numTokens === sequence.numTokensToCompute;
    const firstRow = Math.max(start, sequence.numReturnedRows);
    const share = step.shares.get(sequence);
    if (share === undefined) {
      const { isAdmitted, isNewestInSlot } = sequence;
      const copy = this.#blocks.makeWritable(sequence, start);
      step.shares.set(sequence, { sequence, start, numTokens, samples, firstRow, admits: !isAdmitted, fromSlot: isNewestInSlot, copy });
    } else {
      share.numTokens += numTokens;
      share.samples = samples;
    }
    const numRows = Math.max(0, Math.min(start + numTokens, sequence.numRowsToReturn) - firstRow);
    step.numTokens -= numTokens;
    step.numLogitRows -= numRows + Number(samples);
    sequence.isAdmitted = true;
    sequence.numCachedTokens += numTokens;
    sequence.isNewestInSlot = samples;
    if (samples) sequence.numPendingTokens++;
  }

  /** Sends the last running sequence (lowest priority, newest) back to the queue, to be computed again from its tokens. */
  #preemptLast(): Sequence {
    const sequence = this.#running.pop();
    if (sequence === undefined) throw new NdsError('ERR_INTERNAL', 'Expected a running sequence to preempt but there is none');
    this.#log?.rollback(sequence.name, sequence.numCachedTokens, 0);
    this.#free(sequence);
    sequence.reset();
    this.#enqueue(this.#waiting, sequence);
    this.#numPreemptions++;
    return sequence;
  }

  #commitOne(scheduled: ScheduledSequence, result: SequenceResult, sizes: VocabSizes): SequenceUpdate {
    const { sequence } = scheduled;
    const { tokenId, logprobs, logits, promptLogprobs } = numRowsReturned(scheduled) > 0 ? freshRows(scheduled, result, sizes) : result;
    const end = tokenId === null ? null : sequence.append(tokenId);
    this.#nameBlocks(sequence);
    const isComplete = logits !== null && sequence.numReturnedRows === sequence.numRowsToReturn;
    const finished = end !== null || isComplete;
    if (finished) this.#finish(sequence);
    const finishReason = end?.finishReason ?? null;
    return { sequence, tokenId, logprobs, logits, promptLogprobs, finishReason, stopTokenId: end?.stopTokenId ?? null, finished };
  }

  /** Offers the full blocks of known tokens to sequences of later steps. */
  #nameBlocks(sequence: Sequence): void {
    const { blockSize, enablePrefixCaching } = this.#limits;
    if (!enablePrefixCaching || sequence.slot < 0) return;
    const numFull = Math.floor(Math.min(sequence.tokenIds.length, sequence.numCachedTokens) / blockSize);
    if (numFull > sequence.numNamedBlocks) this.#blocks.name(sequence, sequence.blockNames(blockSize).slice(0, numFull));
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

  /** Puts a sequence where it belongs in a queue. */
  #enqueue(queue: Sequence[], sequence: Sequence): void {
    const after = queue.findLastIndex((other) => comesBefore(other, sequence));
    queue.splice(after + 1, 0, sequence);
  }
}

/** Without the rows that were handed back before: a preempted sequence may compute some a second time. */
function freshRows({ sequence, firstRow }: ScheduledSequence, result: SequenceResult, { vocabSize }: VocabSizes): SequenceResult {
  const numStale = Math.max(0, sequence.numReturnedRows - firstRow);
  const logits = result.logits?.subarray(numStale * vocabSize) ?? null;
  const promptLogprobs = result.promptLogprobs.slice(numStale);
  sequence.numReturnedRows += (logits?.length ?? 0) / vocabSize + promptLogprobs.length;
  return { ...result, logits, promptLogprobs };
}

function comesBefore(a: Sequence, b: Sequence): boolean {
  const byPriority = a.request.priority - b.request.priority;
  return byPriority < 0 || (byPriority === 0 && a.arrival < b.arrival);
}
