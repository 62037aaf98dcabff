/** Metrics of request lifecycles that are written by hand. */
import t from 'tap';
import { emptyResult, type StepResult } from '../../../protocol/step-result.ts';
import { Metrics } from '../../../rank/engine/metrics.ts';
import type { ScheduledBatch, ScheduledSequence } from '../../../rank/scheduler/batch.ts';
import type { SequenceUpdate } from '../../../rank/scheduler/result-reader.ts';
import { Sequence } from '../../../rank/scheduler/sequence.ts';
import { generateRequest } from '../../helpers/requests.ts';

const nobody: ScheduledBatch = [];

const sequenceOf = (requestId: number, index = 0) => new Sequence(generateRequest(requestId, [1, 2, 3, 4, 5]), 64, 0, index);

function scheduled(requestId: number, part: Partial<ScheduledSequence> = {}): ScheduledSequence {
  const whole = {
    start: 0,
    numTokens: 5,
    samples: true,
    firstRow: 0,
    admits: true,
    fromSlot: false,
    drafting: null,

    copy: null,
  };
  return { sequence: sequenceOf(requestId), ...whole, ...part };
}

const token = (requestId: number, tokenId: number, finished = false, index = 0): SequenceUpdate => ({
  sequence: sequenceOf(requestId, index),
  tokenIds: [tokenId],
  numRows: 0,
  logprobs: null,
  drafted: null,
  finishReason: finished ? 'length' : null,
  stopTokenId: null,
  rows: null,
  promptLogprobs: [],
  finished,
});

function result(startSeconds: number, endSeconds: number): StepResult {
  const times = {
    startSeconds,
    endSeconds,
    executeSeconds: endSeconds - startSeconds,
    waitSeconds: 0.5,
    exchangedBytes: 6,
    allReduceBytes: 4,
  };
  return { ...emptyResult, ...times };
}

t.test('a life: queued, prefilled in two steps, three tokens, done', async (t) => {
  const metrics = new Metrics();
  metrics.arrived(7, [0], 10);
  const first = [scheduled(7, { numTokens: 3, samples: false })];
  metrics.scheduled(first, 1, 12);
  metrics.committed(first, result(12, 13), [], true, 13);
  const second = [scheduled(7, { start: 3, numTokens: 2, admits: false })];
  metrics.scheduled(second, 2, 13);
  metrics.committed(second, result(13, 15), [token(7, 8)], true, 15);
  const decode = [scheduled(7, { start: 5, numTokens: 1, admits: false, fromSlot: true })];
  metrics.committed(decode, result(16, 17), [token(7, 9)], true, 17);
  metrics.committed(decode, result(17.5, 20), [token(7, 2, true)], false, 20);
  const { histograms, ...totals } = metrics.snapshot;
  t.same(totals, {
    numSteps: 4,
    numPromptTokens: 5,
    numTokens: 3,
    numRequests: 1,
    numFinishedRequests: 1,
    numAbortedRequests: 0,
    maxNumBlocksInUse: 2,
    numRestarts: 0,
    lostSeconds: 0,
    executeSeconds: 6.5,
    waitSeconds: 2,
    exchangedBytes: 24,
    allReduceBytes: 16,
  });
  const sums = Object.fromEntries(Object.entries(histograms).map(([name, { count, sum, max }]) => [name, [count, sum, max]]));
  t.same(sums, {
    queue: [1, 2, 2],
    prefill: [1, 3, 3],
    decode: [1, 5, 5],
    timeToFirstToken: [1, 5, 5],
    interToken: [2, 5, 3],
    step: [4, 6.5, 2.5],
    hostGap: [3, 1.5, 1],
  });
  t.same(structuredClone(metrics.snapshot), metrics.snapshot);
});

t.test('no gap is counted over a time without work', async (t) => {
  const metrics = new Metrics();
  metrics.committed(nobody, result(1, 2), [], false, 2);
  metrics.committed(nobody, result(100, 101), [], true, 101);
  t.equal(metrics.snapshot.histograms.hostGap.count, 0);
  metrics.committed(nobody, result(101.25, 102), [], false, 102);
  t.match(metrics.snapshot.histograms.hostGap, { count: 1, sum: 0.25 });
});

t.test('each sample of a request has times of its own, and the last ends it', async (t) => {
  const metrics = new Metrics();
  metrics.arrived(0, [0, 1, 2], 0);
  metrics.committed(nobody, result(0, 1), [token(0, 1, true), token(0, 2, false, 1)], true, 1);
  metrics.committed(nobody, result(1, 2), [token(0, 3, true, 1)], true, 4);
  t.match(metrics.snapshot.histograms, { timeToFirstToken: { count: 2 }, interToken: { count: 1, sum: 3 }, decode: { count: 2 } });
  t.match(metrics.snapshot, { numRequests: 1, numFinishedRequests: 0 });
  metrics.aborted(0, 2);
  t.match(metrics.snapshot, { numFinishedRequests: 0, numAbortedRequests: 1 });
});

t.test('an aborted request leaves its counts, and nothing that follows', async (t) => {
  const metrics = new Metrics();
  metrics.arrived(0, [0], 0);
  metrics.aborted(0);
  metrics.aborted(0);
  metrics.scheduled([scheduled(0)], 1, 1);
  metrics.committed(nobody, result(0, 1), [token(0, 1, true)], false, 1);
  t.match(metrics.snapshot, { numRequests: 1, numAbortedRequests: 1, numFinishedRequests: 0 });
  t.match(metrics.snapshot.histograms, { queue: { count: 0 }, decode: { count: 0 } });
});

t.test('a preempted sequence is admitted twice and queues once', async (t) => {
  const metrics = new Metrics();
  metrics.arrived(0, [0], 0);
  metrics.scheduled([scheduled(0)], 3, 1);
  metrics.scheduled([scheduled(0, { start: 4, numTokens: 1 })], 2, 9);
  t.equal(metrics.snapshot.maxNumBlocksInUse, 3);
  t.match(metrics.snapshot.histograms.queue, { count: 1, sum: 1 });
});
