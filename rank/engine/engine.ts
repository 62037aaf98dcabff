/** The loop: schedule → plan → execute → commit. */
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import type { KvLog } from '../kv/log.ts';
import { monotonicSeconds, noTrace, type Trace } from '../observe/trace.ts';
import type { ScheduledBatch } from '../scheduler/batch.ts';
import type { SchedulerLimits } from '../scheduler/limits.ts';
import { buildPlan, type PlanOptions } from '../scheduler/plan-builder.ts';
import { type RowSizes, readResult, type SequenceUpdate } from '../scheduler/result-reader.ts';
import { Scheduler } from '../scheduler/scheduler.ts';
import type { DraftLimits } from '../speculative/candidates.ts';
import type { ResolvedSpeculativeConfig } from '../speculative/config.ts';
import { Speculator } from '../speculative/speculator.ts';
import { ShapePlans, SWEEP_REPEATS, sweepShapes } from '../speculative/sweep.ts';
import { type EngineCommand, type EngineEvent, toErrorInfo } from './messages.ts';
import { Metrics } from './metrics.ts';
import type { EngineStats } from './stats.ts';

/** Runs plans in submission order. */
export interface Executor {
  execute(plan: StepPlan): Promise<StepResult>;
  /** Called after a failed step: no plan follows, since ranks that missed a step cannot run the next. */
  fail(cause: NdsError): void;
}

export interface EngineOptions extends SchedulerLimits, RowSizes {
  /** Null = no speculation. */
  readonly speculativeConfig: ResolvedSpeculativeConfig | null;
  /** The draft model's limits; null without one. */
  readonly draftLimits: DraftLimits | null;
  /** Max plans in flight; with 2, the next plan is built and sent while one runs. */
  readonly maxNumPlansInFlight: number;
}

/** Observers of a running engine. */
export interface EngineObservers {
  readonly trace: Trace;
  /** Null = KV events are not logged. */
  readonly kvLog: KvLog | null;
}

const noObservers: EngineObservers = { trace: noTrace, kvLog: null };

/** How stale `stats()` may be while no request finishes, in seconds; a snapshot costs time. */
const maxStatsAge = 0.02;

interface PlanInFlight {
  readonly batch: ScheduledBatch;
  readonly result: Promise<StepResult>;
}

/** Serves requests until it fails. Commands enter by `post`; events reach the listener of `listen`, in order. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #executor: Executor;
  readonly #observers: EngineObservers;
  #listener: (event: EngineEvent) => void = () => {};
  readonly #speculator: Speculator | null;
  readonly #planOptions: PlanOptions;
  readonly #scheduler: Scheduler;
  readonly #inFlight: PlanInFlight[] = [];
  /** The oldest plan, awaited by the loop. */
  #awaited: Promise<StepResult> | null = null;
  /** Updates of the last step, not reported yet. */
  #unreported: readonly SequenceUpdate[] = [];
  readonly #metrics = new Metrics();
  /** When `#reportAll` last reported stats. */
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

  /** Sets the one listener, before the first command. */
  listen(listener: (event: EngineEvent) => void): void {
    this.#listener = listener;
  }

  get stats(): EngineStats {
    return { ...this.#metrics.snapshot, ...this.#scheduler.counts, speculation: this.#speculator?.stats ?? null };
  }

  /**
   * Measures the cost of drafts on synthetic sequences, for at most about `maxSeconds`. Only before the first command.
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

  /** Accepts a command. Its outcome, a refusal included, is reported to the listener. */
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

  /** Stops scheduling and reports the cause to the listener. Only the first cause counts. */
  fail(cause: NdsError): void {
    if (this.#failure !== null) return;
    this.#failure = cause;
    this.#listener({ type: 'failed', error: toErrorInfo(cause) });
  }

  /** Stops scheduling; settles once no plan is in flight. */
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

  /** Sends the next plan, if any; awaits the oldest in flight when no further plan can be sent. */
  async #step(): Promise<void> {
    const batch = this.#observers.trace.time('schedule', () => this.#scheduler.schedule());
    if (batch !== null) this.#send(batch);
    // Reported after the next plan is sent, so that the callers' work overlaps with the step.
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
    // A failed step fails the next one too; the first awaited reports it.
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

  /** Reports the last step's updates; returns whether there were any. */
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
    const { sequence, tokenIds, logprobs, rows, promptLogprobs, drafted, finishReason, stopTokenId, finished } = update;
    const { request, index, numHitTokens } = sequence;
    const { requestId } = request;
    if (rows !== null) return this.#listener({ type: 'rows', requestId, rows, finished });
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

/** Logs the slots and KV writes of a step. */
function logWrites(log: KvLog, step: number, batch: ScheduledBatch, blockSize: number): void {
  for (const { sequence, start, numTokens, admits } of batch) {
    if (admits) log.slot(sequence.name, sequence.slot);
    log.write(step, sequence.name, start, numTokens, sequence.blockTable, blockSize);
  }
}
