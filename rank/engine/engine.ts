/** The loop: schedule → plan → execute → commit. */
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import type { KvLog } from '../kv/log.ts';
import { monotonicSeconds, noTrace, type Trace } from '../observe/trace.ts';
import type { ScheduledBatch } from '../scheduler/batch.ts';
import type { SchedulerLimits } from '../scheduler/limits.ts';
import { buildPlan, type PlanOptions } from '../scheduler/plan-builder.ts';
import { readResult, type SequenceUpdate, type VocabSizes } from '../scheduler/result-reader.ts';
import { Scheduler } from '../scheduler/scheduler.ts';
import type { DraftLimits } from '../speculative/candidates.ts';
import type { ResolvedSpeculativeConfig } from '../speculative/config.ts';
import { Speculator } from '../speculative/speculator.ts';
import { ShapePlans, SWEEP_REPEATS, sweepShapes } from '../speculative/sweep.ts';
import { type EngineCommand, type EngineEvent, toErrorInfo } from './messages.ts';
import { Metrics } from './metrics.ts';
import type { EngineStats } from './stats.ts';

/** Runs plans, in the order in which they are given. */
export interface Executor {
  execute(plan: StepPlan): Promise<StepResult>;
  /** No plan follows: one of them failed, and ranks that missed a step cannot take the next. */
  fail(cause: NdsError): void;
}

export interface EngineOptions extends SchedulerLimits, VocabSizes {
  /** How tokens are drafted; null = not at all. */
  readonly speculativeConfig: ResolvedSpeculativeConfig | null;
  /** Of the draft model; null without one. */
  readonly draftLimits: DraftLimits | null;
  /** Plans that may be under way at once: with 2, the next plan is built and sent while one runs. */
  readonly maxNumPlansInFlight: number;
}

/** Who looks on while an engine runs. */
export interface EngineObservers {
  readonly trace: Trace;
  /** Null unless KV events are to be printed. */
  readonly kvLog: KvLog | null;
}

const noObservers: EngineObservers = { trace: noTrace, kvLog: null };

/** How stale `stats()` may be while no request finishes, in seconds; a snapshot costs time. */
const maxStatsAge = 0.02;

interface PlanInFlight {
  readonly batch: ScheduledBatch;
  readonly result: Promise<StepResult>;
}

/** Serves requests until it fails. Commands go in by `post`; everything comes out by the listener of `listen`, in order. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #executor: Executor;
  readonly #observers: EngineObservers;
  #listener: (event: EngineEvent) => void = () => {};
  readonly #speculator: Speculator | null;
  readonly #planOptions: PlanOptions;
  readonly #scheduler: Scheduler;
  readonly #inFlight: PlanInFlight[] = [];
  /** The oldest plan, which the loop waits for. */
  #awaited: Promise<StepResult> | null = null;
  /** What the last step brought, which callers have not heard of yet. */
  #unreported: readonly SequenceUpdate[] = [];
  readonly #metrics = new Metrics();
  /** When numbers were last reported. */
  #statsTime = 0;
  #nextStep = 0;
  #isRunning = false;
  #failure: NdsError | null = null;

  constructor(options: EngineOptions, executor: Executor, observers = noObservers) {
    this.#options = options;
    this.#executor = executor;
    this.#observers = observers;
    const { speculativeConfig, draftLimits, blockSize } = options;
    this.#speculator = speculativeConfig === null ? null : new Speculator(speculativeConfig, draftLimits);
    this.#planOptions = { blockSize, hasDraftModel: draftLimits !== null };
    this.#scheduler = new Scheduler(options, observers.kvLog, this.#speculator);
  }

  /** Names the one listener, before the first command. */
  listen(listener: (event: EngineEvent) => void): void {
    this.#listener = listener;
  }

  get stats(): EngineStats {
    return { ...this.#metrics.snapshot, ...this.#scheduler.counts, speculation: this.#speculator?.stats ?? null };
  }

  /**
   * Runs steps of made-up sequences, to see what drafts cost, for as long as `maxSeconds`. Only before the first command.
   * @throws NdsError whatever a step throws
   */
  async sweep(maxSeconds: number): Promise<void> {
    const speculator = this.#speculator;
    if (speculator === null) return;
    const { speculativeConfig, maxNumSeqs, maxNumBatchedTokens } = this.#options;
    const { numSpeculativeTokens = 0 } = speculativeConfig ?? {};
    const end = monotonicSeconds() + maxSeconds;
    for (const shape of sweepShapes({ maxNumSeqs, maxNumBatchedTokens, numSpeculativeTokens })) {
      const plans = ShapePlans.open(shape, this.#options, SWEEP_REPEATS);
      if (plans === null) continue;
      if (monotonicSeconds() >= end) return;
      await this.#executor.execute(plans.admit(this.#nextStep++));
      for (let i = 0; i < SWEEP_REPEATS && monotonicSeconds() < end; i++) {
        const { nextTarget: target, nextDraftPasses: draftPasses } = plans;
        const { executeSeconds, draftSeconds } = await this.#executor.execute(plans.next(this.#nextStep++));
        speculator.learn({ target, targetSeconds: executeSeconds - draftSeconds, draftPasses, draftSeconds });
      }
    }
  }

  /** Takes a command. What comes of it arrives at the listener, never in the call itself. */
  post(command: EngineCommand): void {
    if (this.#failure !== null) return;
    if (command.type === 'abort' || command.type === 'finish') {
      this.#scheduler.abort(command.requestId, command.index);
      if (command.type === 'abort') this.#metrics.aborted(command.requestId, command.index);
      else this.#metrics.finished(command.requestId, command.index, monotonicSeconds());
      this.#listener({ type: 'stats', stats: this.stats });
      return;
    }
    try {
      this.#scheduler.add(command);
      const numSamples = command.type === 'generate' ? command.n : 1;
      this.#metrics.arrived(command.requestId, numSamples, monotonicSeconds());
    } catch (error) {
      const { requestId } = command;
      queueMicrotask(() => this.#listener({ type: 'refused', requestId, error: toErrorInfo(error) }));
      return;
    }
    if (this.#isRunning) return;
    this.#isRunning = true;
    // Requests that arrive in the same turn share the first step.
    queueMicrotask(() => this.#run());
  }

  /** Ends the engine: nothing is scheduled any more, and the listener hears why. The first cause stays. */
  fail(cause: NdsError): void {
    if (this.#failure !== null) return;
    this.#failure = cause;
    this.#listener({ type: 'failed', error: toErrorInfo(cause) });
  }

  /** Ends the engine and settles when no plan is under way any more. */
  async close(): Promise<void> {
    this.fail(new NdsError('ERR_CLOSED', 'Expected an open LLM but it was closed'));
    await Promise.allSettled(this.#inFlight.map(({ result }) => result).concat(this.#awaited ?? []));
  }

  async #run(): Promise<void> {
    try {
      while (this.#failure === null && this.#hasWork) await this.#step();
    } catch (error) {
      const cause = toNdsError(error);
      this.fail(cause);
      this.#executor.fail(cause);
    } finally {
      this.#metrics.idle();
      this.#isRunning = false;
    }
  }

  get #hasWork(): boolean {
    return this.#scheduler.hasWork || this.#inFlight.length > 0 || this.#unreported.length > 0;
  }

  /** Sends one plan, if there is one, and waits for the oldest in flight when no other may follow it now. */
  async #step(): Promise<void> {
    const batch = this.#observers.trace.time('schedule', () => this.#scheduler.schedule());
    if (batch !== null) this.#send(batch);
    // Only now, when the next plan has left: what callers do with their tokens takes time.
    const hasReported = this.#reportAll();
    if (batch !== null && this.#inFlight.length < this.#options.maxNumPlansInFlight) return;
    const oldest = this.#inFlight.shift();
    if (oldest === undefined) {
      if (hasReported) return;
      throw new NdsError('ERR_INTERNAL', 'Expected a sequence that can run but none of those waiting fits');
    }
    this.#awaited = oldest.result;
    const result = await oldest.result;
    if (this.#failure === null) this.#commit(oldest.batch, result);
  }

  #send(batch: ScheduledBatch): void {
    const { numBlocks, numFreeBlocks } = this.#scheduler.counts;
    this.#metrics.scheduled(batch, numBlocks - numFreeBlocks, monotonicSeconds());
    const plan = this.#observers.trace.time('build', () => buildPlan(this.#nextStep++, batch, this.#planOptions));
    const { kvLog } = this.#observers;
    if (kvLog !== null) logWrites(kvLog, plan.step, batch, this.#options.blockSize);
    const result = this.#executor.execute(plan);
    // A failed step fails the next one too; the first to be awaited reports it.
    result.catch(() => {});
    this.#inFlight.push({ batch, result });
  }

  #commit(batch: ScheduledBatch, result: StepResult): void {
    const read = () => readResult(batch, result, this.#options);
    const updates = this.#observers.trace.time('commit', () => this.#scheduler.commit(batch, read()));
    const hasWork = this.#scheduler.hasWork || this.#inFlight.length > 0;
    this.#metrics.committed(batch, result, updates, hasWork, monotonicSeconds());
    this.#unreported = updates;
    if (updates.length === 0) this.#listener({ type: 'stats', stats: this.stats });
  }

  /** Whether there was anything to tell. */
  #reportAll(): boolean {
    const updates = this.#unreported;
    if (updates.length === 0) return false;
    this.#unreported = [];
    const now = monotonicSeconds();
    if (now - this.#statsTime >= maxStatsAge || updates.some(({ finished }) => finished)) {
      this.#statsTime = now;
      this.#listener({ type: 'stats', stats: this.stats });
    }
    for (const update of updates) this.#report(update);
    return true;
  }

  #report(update: SequenceUpdate): void {
    const { sequence, tokenIds, logprobs, logits, promptLogprobs, drafted, finishReason, stopTokenId, finished } = update;
    const { request, index, numHitTokens } = sequence;
    const { requestId } = request;
    if (logits !== null) return this.#listener({ type: 'logits', requestId, logits, finished });
    if (promptLogprobs.length > 0) this.#listener({ type: 'promptLogprobs', requestId, logprobs: promptLogprobs });
    if (tokenIds.length === 0) return;
    this.#listener({
      type: 'tokens',
      requestId,
      index,
      tokenIds,
      logprobs,
      drafted,
      finishReason,
      stopTokenId,
      numCachedTokens: numHitTokens ?? 0,
    });
  }
}

/** Tells a log what the step of a batch writes. */
function logWrites(log: KvLog, step: number, batch: ScheduledBatch, blockSize: number): void {
  for (const { sequence, start, numTokens, admits } of batch) {
    if (admits) log.slot(sequence.name, sequence.slot);
    log.write(step, sequence.name, start, numTokens, sequence.blockTable, blockSize);
  }
}
