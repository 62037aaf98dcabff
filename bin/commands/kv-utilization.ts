/**
 * Paged against contiguous KV allocation: the same requests through the real scheduler and through allocators that
 * reserve ahead. Pure.
 */
import { NdsError } from '../../protocol/errors.ts';
import { emptyResult, type StepResult } from '../../protocol/step-result.ts';
import type { ScheduledBatch } from '../../rank/scheduler/batch.ts';
import { greedyParams } from '../../rank/scheduler/request.ts';
import { readResult } from '../../rank/scheduler/result-reader.ts';
import { Scheduler } from '../../rank/scheduler/scheduler.ts';
import type { Sequence } from '../../rank/scheduler/sequence.ts';

/** Lengths of one request, in tokens. */
export interface Lengths {
  readonly numPromptTokens: number;
  readonly numOutputTokens: number;
}

export interface KvLimits {
  /** Capacity of the cache in tokens, a multiple of `blockSize`. */
  readonly numKvTokens: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
}

/** State of the cache after one step. */
interface Snapshot {
  readonly numSeqs: number;
  readonly numHeldTokens: number;
  readonly numReservedTokens: number;
  /** Whether a request waits: memory limits throughput only then. */
  readonly isFull: boolean;
}

/** Utilization by one allocator: means over the steps in which a request waited, or over all steps where none did. */
export interface Utilization {
  readonly name: string;
  readonly meanNumSeqs: number;
  /** Tokens held ÷ tokens reserved. */
  readonly heldOfReserved: number;
  /**
   * Shares of the whole cache, which sum to 1: holds tokens, reserved but empty (internal fragmentation), unreserved.
   */
  readonly held: number;
  readonly internalFragmentation: number;
  readonly unreserved: number;
  readonly numSteps: number;
  readonly numPreemptions: number;
}

/** Requests with prompt and output lengths uniform in `[minLen, maxLen]`, from a seed (Mulberry32). */
export function uniformWorkload(numRequests: number, minLen: number, maxLen: number, seed: number): Lengths[] {
  let state = seed >>> 0;
  const draw = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return minLen + Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * (maxLen - minLen + 1));
  };
  return Array.from({ length: numRequests }, () => ({ numPromptTokens: draw(), numOutputTokens: draw() }));
}

/** Runs all requests, submitted at once, with each allocator. */
export function compareAllocators(
  workload: readonly Lengths[],
  limits: KvLimits,
  onProgress: (numDone: number, numRequests: number) => void = () => {},
): Utilization[] {
  let numDone = 0;
  const onDone = (count: number) => {
    numDone += count;
    onProgress(numDone, 3 * workload.length);
  };
  return [
    runPaged(workload, limits, onDone),
    runContiguous('contiguous, max_model_len each', workload, limits, () => limits.maxModelLen, onDone),
    runContiguous('contiguous, prompt + max_tokens', workload, limits, (each) => each.numPromptTokens + each.numOutputTokens, onDone),
  ];
}

function summarize(name: string, snapshots: readonly Snapshot[], numKvTokens: number, numPreemptions: number): Utilization {
  const full = snapshots.filter(({ isFull }) => isFull);
  const counted = full.length > 0 ? full : snapshots;
  const mean = (of: (snapshot: Snapshot) => number) => counted.reduce((sum, snapshot) => sum + of(snapshot), 0) / counted.length;
  const heldTokens = mean(({ numHeldTokens }) => numHeldTokens);
  const reservedTokens = mean(({ numReservedTokens }) => numReservedTokens);
  return {
    name,
    meanNumSeqs: mean(({ numSeqs }) => numSeqs),
    heldOfReserved: heldTokens / reservedTokens,
    held: heldTokens / numKvTokens,
    internalFragmentation: (reservedTokens - heldTokens) / numKvTokens,
    unreserved: 1 - reservedTokens / numKvTokens,
    numSteps: snapshots.length,
    numPreemptions,
  };
}

/** Runs the engine's scheduler on an executor that answers at once. */
function runPaged(
  workload: readonly Lengths[],
  { numKvTokens, blockSize, ...limits }: KvLimits,
  onDone: (count: number) => void,
): Utilization {
  const numBlocks = numKvTokens / blockSize;
  const policy = { enablePrefixCaching: false, schedulingPolicy: 'fcfs', longPrefillTokenThreshold: 0 } as const;
  const scheduler = new Scheduler({ ...limits, ...policy, numBlocks, blockSize, maxNumLogitRows: limits.maxNumSeqs });
  const request = { n: 1, eosTokenIds: [], stopTokenIds: [], priority: 0, params: greedyParams };
  workload.forEach(({ numPromptTokens, numOutputTokens }, requestId) => {
    const promptTokenIds = new Array<number>(numPromptTokens).fill(0);
    scheduler.add({ ...request, type: 'generate', requestId, promptTokenIds, maxTokens: numOutputTokens });
  });
  const snapshots: Snapshot[] = [];
  const sequences = new Set<Sequence>();
  while (scheduler.hasWork) {
    const batch = scheduler.schedule();
    if (batch === null) throw new NdsError('ERR_INTERNAL', 'Expected the scheduler to find something to run but received nothing');
    for (const { sequence } of batch) sequences.add(sequence);
    const { numRunning, numWaiting, numFreeBlocks } = scheduler.counts;
    snapshots.push({
      numSeqs: numRunning,
      // A preempted sequence holds nothing until it runs again.
      numHeldTokens: [...sequences].reduce((sum, { numCachedTokens }) => sum + numCachedTokens, 0),
      numReservedTokens: (numBlocks - numFreeBlocks) * blockSize,
      isFull: numWaiting > 0,
    });
    scheduler.commit(batch, readResult(batch, instantResult(batch), { vocabSize: 1, sampleVocabSize: 1, hiddenSize: 1 }));
    const done = batch.filter(({ sequence }) => sequence.isDone);
    for (const { sequence } of done) sequences.delete(sequence);
    onDone(done.length);
  }
  return summarize(`paged, blocks of ${blockSize}`, snapshots, numKvTokens, scheduler.counts.numPreemptions);
}

/** One token for every sequence that samples in this step. */
function instantResult(batch: ScheduledBatch): StepResult {
  const numTokens = Int32Array.from(batch, ({ samples }) => Number(samples));
  return { ...emptyResult, numTokens, tokenIds: new Int32Array(numTokens.filter(Boolean).length) };
}

interface Reservation extends Lengths {
  readonly begin: number;
  readonly end: number;
  /** Tokens with cached KV; the last output token never has any. */
  numCachedTokens: number;
}

/** Reserves one range of `sizeOf` tokens for the life of a request: first come, first served, first fit. */
function runContiguous(
  name: string,
  workload: readonly Lengths[],
  { numKvTokens, maxNumSeqs, maxNumBatchedTokens }: KvLimits,
  sizeOf: (lengths: Lengths) => number,
  onDone: (count: number) => void,
): Utilization {
  const waiting = [...workload];
  /** In order of arrival. */
  let running: Reservation[] = [];
  const snapshots: Snapshot[] = [];
  while (waiting.length + running.length > 0) {
    let budget = maxNumBatchedTokens;
    const advance = (each: Reservation) => {
      const isDecode = each.numCachedTokens >= each.numPromptTokens;
      const numTokens = Math.min(budget, isDecode ? 1 : each.numPromptTokens - each.numCachedTokens);
      each.numCachedTokens += numTokens;
      budget -= numTokens;
    };
    const [decodes, prefills] = [running.filter(isPrefilled), running.filter((each) => !isPrefilled(each))];
    for (const each of [...decodes, ...prefills]) advance(each);
    while (waiting.length > 0 && budget > 0 && running.length < maxNumSeqs) {
      const next = waiting[0] as Lengths;
      const size = sizeOf(next);
      const begin = firstGap(running, size, numKvTokens);
      if (begin === undefined) break;
      const reservation = { ...next, begin, end: begin + size, numCachedTokens: 0 };
      waiting.shift();
      running.push(reservation);
      advance(reservation);
    }
    snapshots.push({
      numSeqs: running.length,
      numHeldTokens: running.reduce((sum, { numCachedTokens }) => sum + numCachedTokens, 0),
      numReservedTokens: running.reduce((sum, { begin, end }) => sum + end - begin, 0),
      isFull: waiting.length > 0,
    });
    const left = running.filter((each) => each.numCachedTokens < each.numPromptTokens + each.numOutputTokens - 1);
    onDone(running.length - left.length);
    running = left;
  }
  return summarize(name, snapshots, numKvTokens, 0);
}

function isPrefilled({ numCachedTokens, numPromptTokens }: Reservation): boolean {
  return numCachedTokens >= numPromptTokens;
}

/** The lowest offset with `size` contiguous free tokens. */
function firstGap(reservations: readonly Reservation[], size: number, numKvTokens: number): number | undefined {
  let begin = 0;
  for (const each of [...reservations].sort((a, b) => a.begin - b.begin)) {
    if (each.begin - begin >= size) return begin;
    begin = each.end;
  }
  return numKvTokens - begin >= size ? begin : undefined;
}
