/** The loop: schedule → plan → execute → commit. */
import { deferred } from '../../protocol/deferred.ts';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import { monotonicSeconds, noTrace } from '../observe/trace.ts';
import type { ScheduledBatch } from '../scheduler/batch.ts';
import { logWrites } from '../scheduler/log-writes.ts';
import { buildPlan, type PlanOptions } from '../scheduler/plan-builder.ts';
import { checkReported } from '../scheduler/reported.ts';
import { openSamples } from '../scheduler/request.ts';
import { readResult, type SequenceUpdate } from '../scheduler/result-reader.ts';
import { Scheduler } from '../scheduler/scheduler.ts';
import { Speculator } from '../speculative/speculator.ts';
import { sweepDrafts } from './draft-sweep.ts';
import type { EngineObservers, EngineOptions, Executor } from './executor.ts';
import { type EngineCommand, type EngineEvent, toErrorInfo } from './messages.ts';
import { Metrics } from './metrics.ts';
import type { EngineStats } from './stats.ts';
import { eventsOf } from './step-events.ts';

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
  /** A step from before a loss is dropped. */
  #numLosses = 0;
  /** Whether no step can run: ranks were lost, or a failed step says so. */
  #isStopped = false;
  /** Whether a loss awaits its `resubmit`. */
  #isForgotten = false;
  /** Wakes who waits in `#whenRunnable`. */
  #wake: () => void = () => {};
  #failure: NdsError | null = null;
  /** Settles when ranks are lost after the failure: a step of theirs may never end. */
  readonly #lostAtLast = deferred<void>();

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
   * Measures the cost of drafts on synthetic sequences, for at most about `maxSeconds`; once more after a loss. Only
   * before the first command.
   * @throws NdsError whatever a step throws
   */
  async sweep(maxSeconds: number): Promise<void> {
    const speculator = this.#speculator;
    const { numSpeculativeTokens } = this.#options.speculativeConfig ?? {};
    if (speculator === null || numSpeculativeTokens === undefined) return;
    for (let isSwept = false; !isSwept; ) {
      const numLosses = this.#numLosses;
      const execute = (planOf: (step: number) => StepPlan) => this.#executor.execute(planOf(this.#nextStep++));
      try {
        await sweepDrafts(speculator, { ...this.#options, numSpeculativeTokens }, monotonicSeconds() + maxSeconds, execute);
        isSwept = numLosses === this.#numLosses;
      } catch (error) {
        if (numLosses === this.#numLosses) this.#onStepError(toNdsError(error));
      }
      await this.#whenRunnable();
    }
  }

  /** Accepts a command. Its outcome, a refusal included, is reported to the listener. */
  post(command: EngineCommand): void {
    if (this.#failure !== null) return;
    if (command.type === 'resubmit') {
      if (command.numLosses === this.#numLosses) this.#isForgotten = false;
      return;
    }
    if (command.type === 'abort' || command.type === 'finish') {
      this.#scheduler.abort(command.requestId, command.index);
      if (command.type === 'abort') this.#metrics.aborted(command.requestId, command.index);
      else this.#metrics.finished(command.requestId, command.index, monotonicSeconds());
      this.#listener({ type: 'stats', stats: this.stats });
      return;
    }
    if (this.#isForgotten) return;
    try {
      checkReported(command, this.#options);
      this.#scheduler.add(command);
      this.#metrics.arrived(command.requestId, openSamples(command), monotonicSeconds());
    } catch (error) {
      const { requestId } = command;
      queueMicrotask(() => this.#listener({ type: 'refused', requestId, error: toErrorInfo(error) }));
      return;
    }
    this.#start();
  }

  /**
   * Drops all that the ranks held, plans in flight included: they were lost. Requests wait for `resume`; the client
   * resubmits those that it has. Nothing waits to be reported: the loop reports before it awaits a step.
   */
  lose(): void {
    if (this.#failure !== null) return this.#lostAtLast.resolve();
    this.#numLosses++;
    this.#inFlight.length = 0;
    this.#awaited = null;
    this.#nextStep = 0;
    this.#isRunning = false;
    this.#isStopped = true;
    this.#isForgotten = true;
    this.#scheduler.lose();
    this.#metrics.lost(monotonicSeconds());
    this.#listener({ type: 'stats', stats: this.stats });
    this.#listener({ type: 'lost', numLosses: this.#numLosses });
  }

  /** Runs requests again, on ranks that hold nothing but the model. */
  resume(): void {
    if (this.#failure !== null) return;
    this.#isStopped = false;
    this.#metrics.resumed(monotonicSeconds());
    this.#listener({ type: 'stats', stats: this.stats });
    this.#listener({ type: 'resumed' });
    this.#wake();
    if (this.#hasWork) this.#start();
  }

  /** Stops scheduling and reports the cause to the listener. Only the first cause counts. */
  fail(cause: NdsError): void {
    if (this.#failure !== null) return;
    this.#failure = cause;
    this.#listener({ type: 'failed', error: toErrorInfo(cause) });
    this.#wake();
  }

  /** Stops scheduling; settles once no plan is in flight, or the ranks that run it are lost. */
  async close(): Promise<void> {
    this.fail(new NdsError('ERR_CLOSED', 'Expected an open LLM but it was closed'));
    const results = this.#inFlight.map(({ result }) => result).concat(this.#awaited ?? []);
    await Promise.race([Promise.allSettled(results), this.#lostAtLast.promise]);
  }

  #start(): void {
    if (this.#isRunning || this.#isStopped) return;
    this.#isRunning = true;
    // Requests that arrive in the same turn share the first step.
    const numLosses = this.#numLosses;
    queueMicrotask(() => this.#run(numLosses));
  }

  async #run(numLosses: number): Promise<void> {
    try {
      while (this.#failure === null && numLosses === this.#numLosses && this.#hasWork) await this.#step(numLosses);
    } catch (error) {
      if (numLosses === this.#numLosses) this.#onStepError(toNdsError(error));
    } finally {
      if (numLosses === this.#numLosses) {
        this.#metrics.idle();
        this.#isRunning = false;
      }
    }
  }

  #onStepError(cause: NdsError): void {
    if (!this.#executor.fail(cause)) return this.fail(cause);
    this.#isStopped = true;
    this.#metrics.stopped(monotonicSeconds());
  }

  /** Settles once steps can run. @throws NdsError the failure of the engine. */
  async #whenRunnable(): Promise<void> {
    while (this.#isStopped && this.#failure === null) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure !== null) throw this.#failure;
  }

  get #hasWork(): boolean {
    return this.#scheduler.hasWork || this.#inFlight.length > 0 || this.#unreported.length > 0;
  }

  /** Sends the next plan, if any; awaits the oldest in flight when no further plan can be sent. */
  async #step(numLosses: number): Promise<void> {
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
    if (this.#failure === null && numLosses === this.#numLosses) this.#commit(oldest.batch, result);
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
    for (const event of updates.flatMap(eventsOf)) this.#listener(event);
    return true;
  }
}
