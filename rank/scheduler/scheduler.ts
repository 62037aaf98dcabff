/** Schedules steps: which sequences run, with how many tokens, and which are preempted when blocks run out. */
import { NdsError } from '../../protocol/errors.ts';
import { BlockManager } from '../kv/block-manager.ts';
import type { KvLog } from '../kv/log.ts';
import type { ScheduledBatch, ScheduledSequence } from './batch.ts';
import type { Drafter } from './drafter.ts';
import { checkFits, longestSequence, type SchedulerLimits } from './limits.ts';
import { fitHit, type PrefixHit, waitsForLeader } from './prefix-hit.ts';
import { type EngineRequest, openSamples } from './request.ts';
import type { BatchResult, SequenceResult, SequenceUpdate } from './result-reader.ts';
import { type Drafting, enqueue, remove, Sequence } from './sequence.ts';
import { StepBuilder } from './step-budget.ts';

const noDrafts: ReadonlyMap<Sequence, Drafting> = new Map();
const nothingDrafted = { numDrafts: 0, numAccepted: 0 };

/** Owns the sequences, slots and blocks. Both queues are in serving order. */
export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #blocks: BlockManager;
  /** Blocks of the draft model's cache: equally many, allocated independently. */
  readonly #draftBlocks: BlockManager;
  readonly #drafter: Drafter | null;
  readonly #freeSlots: number[];
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #log: KvLog | null;
  #numArrivals = 0;
  #numPreemptions = 0;
  #numPrefixQueries = 0;
  #numPrefixHits = 0;

  constructor(limits: SchedulerLimits, log: KvLog | null = null, drafter: Drafter | null = null) {
    this.#limits = limits;
    this.#log = log;
    this.#drafter = drafter;
    this.#blocks = new BlockManager(limits.numBlocks, limits.blockSize, log);
    this.#draftBlocks = new BlockManager(limits.numBlocks, limits.blockSize, log);
    this.#freeSlots = Array.from({ length: limits.maxNumSeqs }, (_, i) => limits.maxNumSeqs - 1 - i);
  }

  get hasWork(): boolean {
    return this.#running.length + this.#waiting.length > 0;
  }

  /** Current occupancy and event counts. */
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
      numFreeDraftBlocks: this.#draftBlocks.numFreeBlocks,
      numFreeSlots: this.#freeSlots.length,
    };
  }

  /** Queues a request. @throws NdsError `ERR_REQUEST` when it could not finish even with the engine to itself. */
  add(request: EngineRequest): void {
    const longest = longestSequence(this.#limits);
    let leader: Sequence | null = null;
    for (const index of openSamples(request)) {
      const sequence: Sequence = new Sequence(request, longest, this.#numArrivals++, index, leader);
      if (leader === null) checkFits(sequence, this.#limits);
      leader ??= sequence;
      enqueue(this.#waiting, sequence);
    }
  }

  /** Drops every sequence and every cached block: the ranks that held them are gone. */
  lose(): void {
    for (const sequence of [...this.#running, ...this.#waiting]) {
      sequence.isDone = true;
      this.#free(sequence);
    }
    this.#running.length = 0;
    this.#waiting.length = 0;
    this.#blocks.forget();
    this.#draftBlocks.forget();
    this.#drafter?.lost();
  }

  /** Drops a request, or one of its samples, unless done. The next plan may reuse its blocks and slot. */
  abort(requestId: number, index: number | null = null): void {
    const isMeant = (sequence: Sequence) => sequence.request.requestId === requestId && (index === null || sequence.index === index);
    for (const sequence of [...this.#running, ...this.#waiting].filter(isMeant)) this.#finish(sequence);
  }

  /** The next step; null when nothing can run before a step in flight returns. */
  schedule(): ScheduledBatch | null {
    const { maxNumBatchedTokens, maxNumLogitRows, longPrefillTokenThreshold } = this.#limits;
    const step = new StepBuilder(this.#blocks, maxNumBatchedTokens, maxNumLogitRows);
    for (const sequence of this.#running) sequence.numStoredTokens = sequence.numCachedTokens;
    if (this.#limits.schedulingPolicy === 'priority') this.#makeWay();
    this.#scheduleDecodes(step);
    const most = longPrefillTokenThreshold || maxNumBatchedTokens;
    this.#schedulePrefills(step, most);
    this.#admit(step, most);
    // The threshold holds only while others compete; the rest of the budget is unclaimed.
    if (most < maxNumBatchedTokens) this.#schedulePrefills(step, maxNumBatchedTokens);
    for (const sequence of step.sequences) this.#nameBlocks(sequence);
    const { batch } = step;
    if (batch !== null) this.#drafter?.planned(batch);
    return batch;
  }

  /** Applies a step's result: appends tokens, finishes sequences, frees their slots and blocks. */
  commit(batch: ScheduledBatch, { sequences: results, timings }: BatchResult): SequenceUpdate[] {
    const updates: SequenceUpdate[] = [];
    const numAccepted = batch.map((scheduled, i) => {
      if (scheduled.sequence.isDone) return null;
      const update = this.#commitOne(scheduled, results[i] as SequenceResult);
      updates.push(update);
      return update.drafted?.numAccepted ?? null;
    });
    this.#drafter?.committed(batch, numAccepted, timings);
    return updates;
  }

  /** Preempts lower-priority sequences, the lowest first, until the next waiting one fits; none if it cannot fit. */
  #makeWay(): void {
    const next = this.#waiting.find((sequence) => this.#isReady(sequence));
    if (next === undefined) return;
    const lower = this.#running.filter(({ request }) => request.priority > next.request.priority);
    const numBlocks = this.#blocks.numFreeBlocks + this.#blocks.countHeldBy(lower);
    if (this.#blocks.numBlocksFor(next.numTokens) + this.#running.length - lower.length > numBlocks) return;
    for (let i = 0; i < lower.length && (this.#freeSlots.length === 0 || this.#fit(next) === null); i++) this.#preemptLast();
  }

  /** Schedules one token per decoding sequence, in order, then drafts in the blocks that remain. */
  #scheduleDecodes(step: StepBuilder): void {
    const running = this.#running.filter(({ isDecoding }) => isDecoding);
    const drafts = this.#chooseDrafts(step, running);
    const decoding = drafts.size === 0 ? running : running.filter((sequence) => drafts.get(sequence) !== 'wait');
    for (const sequence of decoding) {
      // The last in order is preempted, perhaps one of `decoding` still ahead or this one.
      while (sequence.slot >= 0 && !this.#blocks.reserve(sequence, sequence.numTokens)) this.#preemptLast();
    }
    for (const sequence of decoding) {
      if (sequence.slot >= 0) step.take(sequence, 1, this.#fitDrafts(sequence, drafts.get(sequence)));
    }
  }

  #chooseDrafts(step: StepBuilder, decoding: readonly Sequence[]): ReadonlyMap<Sequence, Drafting | 'wait'> {
    if (this.#drafter === null) return noDrafts;
    const isWanted =
      (this.#waiting.length > 0 && this.#freeSlots.length > 0) ||
      this.#running.some((sequence) => !sequence.isDecoding && sequence.numTokensToCompute > 0);
    // Drafts get at most half of the budget while prefills want it, so that decodes do not starve newcomers.
    const room = (left: number) => (isWanted ? Math.floor(left / 2) : left);
    return this.#drafter.choose(decoding, {
      numTokens: room(step.numTokens - decoding.length),
      numLogitRows: room(step.numLogitRows - decoding.length),
      numPromptTokens: () =>
        [...this.#running, ...this.#waiting].reduce((sum, other) => sum + (other.isDecoding ? 0 : other.numTokensToCompute), 0),
    });
  }

  /** The chosen drafts, if blocks are free: drafts preempt no sequence and leave one block per running sequence. */
  #fitDrafts(sequence: Sequence, drafting: Drafting | 'wait' | undefined): Drafting | null {
    if (drafting === undefined || drafting === 'wait') return null;
    const { numDrafts, draftLen } = drafting;
    // The draft model reads its unseen tokens, and all of its drafts but the last.
    const numDraftTokens = draftLen === 0 ? 0 : sequence.numTokens + Math.max(0, numDrafts - 1);
    const fits =
      this.#draftBlocks.reserve(sequence.draft, numDraftTokens) &&
      this.#blocks.reserve(sequence, sequence.numTokens + numDrafts, this.#running.length);
    return fits ? drafting : null;
  }

  #schedulePrefills(step: StepBuilder, most: number): void {
    for (const sequence of this.#running) {
      if (!sequence.isDecoding) step.take(sequence, step.countTokens(sequence, sequence.numCachedTokens, most));
    }
  }

  /** Admits waiting sequences in order, while tokens, slots and blocks last. */
  #admit(step: StepBuilder, most: number): void {
    for (let i = 0; i < this.#waiting.length && step.numTokens > 0 && this.#freeSlots.length > 0; ) {
      const sequence = this.#waiting[i] as Sequence;
      if (waitsForLeader(sequence)) {
        i++;
        continue;
      }
      const hit = this.#isReady(sequence) ? this.#fit(sequence) : null;
      if (hit === null) return;
      const numTokens = step.countTokens(sequence, hit.numTokens, most);
      if (numTokens === 0) return;
      this.#waiting.splice(i, 1);
      this.#letIn(sequence, hit);
      step.take(sequence, numTokens);
    }
  }

  /** Recomputing a preempted sequence needs the values of its tokens in flight. */
  #isReady(sequence: Sequence): boolean {
    return sequence.numPendingTokens === 0 && !waitsForLeader(sequence);
  }

  /** The cached prefix that admits a sequence; null when too few blocks are free. */
  #fit(sequence: Sequence): PrefixHit | null {
    // One block per running sequence is kept for growth, or the newcomer would be preempted at once.
    return fitHit(sequence, this.#blocks, this.#limits.enablePrefixCaching, this.#running.length);
  }

  #letIn(sequence: Sequence, hit: PrefixHit): void {
    this.#blocks.share(sequence, hit.blocks);
    this.#blocks.reserve(sequence, sequence.numTokens);
    sequence.numCachedTokens = hit.numTokens;
    if (sequence.numHitTokens === null) {
      sequence.numHitTokens = hit.numTokens;
      // Samples after the first share its blocks, whatever is cached, so they count as no lookup.
      if (sequence.leader === null) {
        this.#numPrefixQueries += sequence.numPromptTokens;
        this.#numPrefixHits += hit.numTokens;
      }
    }
    sequence.slot = this.#freeSlots.pop() as number;
    enqueue(this.#running, sequence);
  }

  /** Preempts the last running sequence (lowest priority, newest): requeues it for recomputation. */
  #preemptLast(): Sequence {
    const sequence = this.#running.pop();
    if (sequence === undefined) throw new NdsError('ERR_INTERNAL', 'Expected a running sequence to preempt but there is none');
    this.#log?.rollback(sequence.name, sequence.numCachedTokens, 0);
    this.#free(sequence);
    sequence.reset();
    enqueue(this.#waiting, sequence);
    this.#numPreemptions++;
    return sequence;
  }

  #commitOne(scheduled: ScheduledSequence, result: SequenceResult): SequenceUpdate {
    const { sequence, drafting } = scheduled;
    const { rows, promptLogprobs, numRows } = result;
    sequence.numReturnedRows += numRows;
    const { numTokens, end } = sequence.appendAll(result.tokenIds);
    const numAccepted = drafting === null ? 0 : result.tokenIds.length - 1;
    if (drafting !== null) this.#rollBack(sequence, drafting, drafting.numDrafts - numAccepted);
    const isDecode = scheduled.samples && scheduled.fromSlot;
    this.#nameBlocks(sequence);
    const isComplete = rows !== null && sequence.numReturnedRows === sequence.numRowsToReturn;
    const finished = end !== null || isComplete;
    if (finished) this.#finish(sequence);
    // Tokens past the end of the text are dropped.
    const tokenIds = result.tokenIds.slice(0, numTokens);
    const logprobs = result.logprobs?.slice(0, numTokens) ?? null;
    const [finishReason, stopTokenId] = [end?.finishReason ?? null, end?.stopTokenId ?? null];
    const drafted =
      this.#drafter === null || !isDecode ? null : drafting === null ? nothingDrafted : { numDrafts: drafting.numDrafts, numAccepted };
    return { sequence, tokenIds, logprobs, rows, numRows, promptLogprobs, drafted, finishReason, stopTokenId, finished };
  }

  /** Rolls back rejected drafts. Truncating lengths suffices: cached entries past them are never read. */
  #rollBack(sequence: Sequence, drafting: Drafting, numRejected: number): void {
    if (numRejected === 0) return;
    const numBefore = sequence.numCachedTokens;
    sequence.rollBack(numRejected, drafting);
    // Preempted meanwhile: nothing is cached.
    if (sequence.slot < 0) return;
    this.#log?.rollback(sequence.name, numBefore, sequence.numCachedTokens);
    this.#blocks.truncate(sequence, sequence.numTokens);
    this.#draftBlocks.truncate(sequence.draft, sequence.numTokens);
  }

  /** Names the full blocks of known tokens, for reuse by later steps. */
  #nameBlocks(sequence: Sequence): void {
    const { blockSize, enablePrefixCaching } = this.#limits;
    if (!enablePrefixCaching || sequence.slot < 0) return;
    const numFull = Math.floor(Math.min(sequence.tokenIds.length, sequence.numCachedTokens) / blockSize);
    if (numFull > sequence.numNamedBlocks) this.#blocks.name(sequence, sequence.blockNames(blockSize).slice(0, numFull));
  }

  #finish(sequence: Sequence): void {
    sequence.isDone = true;
    this.#drafter?.ended(sequence);
    for (const queue of [this.#running, this.#waiting]) remove(queue, sequence);
    this.#free(sequence);
  }

  #free(sequence: Sequence): void {
    this.#blocks.release(sequence);
    this.#draftBlocks.release(sequence.draft);
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    sequence.slot = -1;
  }
}
