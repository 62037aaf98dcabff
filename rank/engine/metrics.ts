/** Counters and histograms of an engine. Pure: events and their times, in seconds, are passed in. */
import type { StepResult } from '../../protocol/step-result.ts';
import type { ScheduledBatch } from '../scheduler/batch.ts';
import type { SequenceUpdate } from '../scheduler/result-reader.ts';
import type { Sequence } from '../scheduler/sequence.ts';
import { Histogram } from './histogram.ts';
import type { MetricsSnapshot } from './stats.ts';

/** Timestamps of a sample, in seconds. */
interface SampleTimes {
  readonly arrival: number;
  firstStep: number | null;
  firstToken: number | null;
  lastToken: number;
}

export class Metrics {
  /** Unfinished samples of each request. */
  readonly #requests = new Map<number, Map<number, SampleTimes>>();
  readonly #totals = {
    numSteps: 0,
    numPromptTokens: 0,
    numTokens: 0,
    numRequests: 0,
    numFinishedRequests: 0,
    numAbortedRequests: 0,
    maxNumBlocksInUse: 0,
    numRestarts: 0,
    lostSeconds: 0,
    executeSeconds: 0,
    waitSeconds: 0,
    exchangedBytes: 0,
    allReduceBytes: 0,
  };
  readonly #queue = new Histogram();
  readonly #prefill = new Histogram();
  readonly #decode = new Histogram();
  readonly #timeToFirstToken = new Histogram();
  readonly #interToken = new Histogram();
  readonly #step = new Histogram();
  readonly #hostGap = new Histogram();
  /** End of the last step; null when idle since. */
  #lastEnd: number | null = null;
  /** Since when no step can run; null while steps can. */
  #lostAt: number | null = null;

  get snapshot(): MetricsSnapshot {
    const histograms = {
      queue: this.#queue.snapshot,
      prefill: this.#prefill.snapshot,
      decode: this.#decode.snapshot,
      timeToFirstToken: this.#timeToFirstToken.snapshot,
      interToken: this.#interToken.snapshot,
      step: this.#step.snapshot,
      hostGap: this.#hostGap.snapshot,
    };
    return { ...this.#totals, histograms };
  }

  /** A request was accepted, with samples of these indices; no-op for one that was before. */
  arrived(requestId: number, indices: readonly number[], now: number): void {
    if (this.#requests.has(requestId)) return;
    this.#totals.numRequests++;
    const newTimes = (): SampleTimes => ({ arrival: now, firstStep: null, firstToken: null, lastToken: now });
    this.#requests.set(requestId, new Map(indices.map((index) => [index, newTimes()])));
  }

  /** A request, or one of its samples, was aborted; no-op when it is done. */
  aborted(requestId: number, index?: number): void {
    if (this.#end(requestId, index)) this.#totals.numAbortedRequests++;
  }

  /** A sample finished; no-op when it had before. */
  finished(requestId: number, index: number, now: number): void {
    const times = this.#requests.get(requestId)?.get(index);
    if (times === undefined) return;
    if (times.firstToken !== null) this.#decode.observe(now - times.firstToken);
    if (this.#end(requestId, index)) this.#totals.numFinishedRequests++;
  }

  /** A step was scheduled. */
  scheduled(batch: ScheduledBatch, numBlocksInUse: number, now: number): void {
    const totals = this.#totals;
    totals.maxNumBlocksInUse = Math.max(totals.maxNumBlocksInUse, numBlocksInUse);
    for (const { sequence, admits } of batch) {
      if (!admits) continue;
      const times = this.#timesOf(sequence);
      if (times === undefined || times.firstStep !== null) continue;
      times.firstStep = now;
      this.#queue.observe(now - times.arrival);
    }
  }

  /** A step was committed. `hasWork`: whether anything is left to run or in flight. */
  committed(batch: ScheduledBatch, result: StepResult, updates: readonly SequenceUpdate[], hasWork: boolean, now: number): void {
    this.#count(batch, result);
    if (this.#lastEnd !== null) this.#hostGap.observe(Math.max(0, result.startSeconds - this.#lastEnd));
    this.#lastEnd = hasWork ? result.endSeconds : null;
    for (const update of updates) this.#update(update, now);
  }

  /** No step can run: one has failed. No-op when another had before. */
  stopped(now: number): void {
    this.#lostAt ??= now;
    this.#lastEnd = null;
  }

  /** The other ranks were lost. */
  lost(now: number): void {
    this.stopped(now);
    this.#totals.numRestarts++;
  }

  /** Steps run again. */
  resumed(now: number): void {
    this.#totals.lostSeconds += now - (this.#lostAt ?? now);
    this.#lostAt = null;
  }

  /** No work is left: idle time is no host gap. */
  idle(): void {
    this.#lastEnd = null;
  }

  #update({ sequence, tokenIds, finished }: SequenceUpdate, now: number): void {
    const times = this.#timesOf(sequence);
    if (times === undefined) return;
    if (tokenIds.length > 0) {
      this.#totals.numTokens += tokenIds.length;
      if (times.firstToken === null) {
        times.firstToken = now;
        this.#prefill.observe(now - (times.firstStep ?? now));
        this.#timeToFirstToken.observe(now - times.arrival);
      } else {
        this.#interToken.observe(now - times.lastToken);
      }
      times.lastToken = now;
    }
    if (finished) this.finished(sequence.request.requestId, sequence.index, now);
  }

  #timesOf({ request, index }: Sequence): SampleTimes | undefined {
    return this.#requests.get(request.requestId)?.get(index);
  }

  /** Removes a sample, or all without `index`; returns whether that ended the request. */
  #end(requestId: number, index?: number): boolean {
    const samples = this.#requests.get(requestId);
    if (index === undefined) samples?.clear();
    else samples?.delete(index);
    return samples?.size === 0 && this.#requests.delete(requestId);
  }

  #count(batch: ScheduledBatch, result: StepResult): void {
    const totals = this.#totals;
    totals.numSteps++;
    for (const { fromSlot, numTokens } of batch) if (!fromSlot) totals.numPromptTokens += numTokens;
    this.#step.observe(result.executeSeconds);
    totals.executeSeconds += result.executeSeconds;
    totals.waitSeconds += result.waitSeconds;
    totals.exchangedBytes += result.exchangedBytes;
    totals.allReduceBytes += result.allReduceBytes;
  }
}
