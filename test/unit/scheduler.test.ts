/** The schedule as a pure function: who runs in which step, with how many tokens, and who gives way. */
import t from 'tap';
import type { StepResult } from '../../protocol/step-result.ts';
import type { EngineRequest } from '../../rank/engine-messages.ts';
import { type ScheduledBatch, Scheduler, type SchedulerLimits } from '../../rank/scheduler.ts';
import { noStats } from '../helpers/fake-executor.ts';

const params = { temperature: 0, topP: 1, minP: 0, topK: 0, seed: 0n, sampleIndex: 0 };

function makeScheduler(overrides: Partial<SchedulerLimits> = {}): Scheduler {
  return new Scheduler({
    numBlocks: 100,
    blockSize: 4,
    maxModelLen: 64,
    maxNumSeqs: 4,
    maxNumBatchedTokens: 8,
    maxNumLogitRows: 8,
    ...overrides,
  });
}

function generate(requestId: number, numPromptTokens: number, maxTokens = 10, eosTokenIds: number[] = []): EngineRequest {
  return { type: 'generate', requestId, promptTokenIds: new Array(numPromptTokens).fill(1), maxTokens, eosTokenIds, params };
}

function logits(requestId: number, numPromptTokens: number): EngineRequest {
  return { type: 'logits', requestId, promptTokenIds: new Array(numPromptTokens).fill(1) };
}

/** A batch in short: `[request, start, tokens]`, with `*` where a token is sampled. */
function inShort(batch: ScheduledBatch | null): string[] | null {
  return (
    batch?.map(({ sequence, start, numTokens, samples }) => `${sequence.request.requestId}: ${start}+${numTokens}${samples ? '*' : ''}`) ??
    null
  );
}

/** The step's result when every token that is sampled is `tokenId`. */
function resultOf(batch: ScheduledBatch, tokenId = 5): StepResult {
  const numTokens = Int32Array.from(batch, ({ samples }) => Number(samples));
  const numRows = batch.reduce((sum, { returnsLogits, numTokens: count }) => sum + (returnsLogits ? count : 0), 0);
  return {
    ...noStats,
    numTokens,
    tokenIds: new Int32Array(numTokens.filter(Boolean).length).fill(tokenId),
    logits: new Float32Array(numRows),
  };
}

/** Schedules a step and commits it at once. */
function step(scheduler: Scheduler, tokenId?: number) {
  const batch = scheduler.schedule();
  if (batch === null) return { batch: null, updates: [] };
  return { batch: inShort(batch), updates: scheduler.commit(batch, resultOf(batch, tokenId), 1) };
}

t.test('decodes come first, prefills share what is left in order of arrival', async (t) => {
  const scheduler = makeScheduler();
  scheduler.add(generate(0, 3));
  t.same(step(scheduler).batch, ['0: 0+3*']);
  scheduler.add(generate(1, 10));
  scheduler.add(generate(2, 2));
  t.same(step(scheduler).batch, ['0: 3+1*', '1: 0+7'], 'eight tokens a step');
  t.same(step(scheduler).batch, ['0: 4+1*', '1: 7+3*', '2: 0+2*']);
  t.same(step(scheduler).batch, ['0: 5+1*', '1: 10+1*', '2: 2+1*']);
});

t.test('the next step is scheduled before the last is back', async (t) => {
  const scheduler = makeScheduler();
  scheduler.add(generate(0, 3, 3));
  const batches = [scheduler.schedule(), scheduler.schedule(), scheduler.schedule()] as ScheduledBatch[];
  t.same(batches.map(inShort), [['0: 0+3*'], ['0: 3+1*'], ['0: 4+1*']]);
  t.equal(scheduler.schedule(), null, 'all three tokens are on their way');
  const finishReasons = batches.map((batch) => scheduler.commit(batch, resultOf(batch), 1)[0]?.finishReason);
  t.same(finishReasons, [null, null, 'length']);
  t.notOk(scheduler.hasWork);
});

t.test('a step that was scheduled past an end is dropped', async (t) => {
  const scheduler = makeScheduler();
  scheduler.add(generate(0, 3, 9, [7]));
  const first = scheduler.schedule() as ScheduledBatch;
  const second = scheduler.schedule() as ScheduledBatch;
  t.match(scheduler.commit(first, resultOf(first, 7), 1), [{ requestId: 0, tokenIds: [7], finishReason: 'stop', finished: true }]);
  t.same(scheduler.commit(second, resultOf(second, 8), 1), []);
  t.match(scheduler.counts, { numRunning: 0, numFreeBlocks: 100, numFreeSlots: 4 });
});

t.test('at most maxNumSeqs run, the others wait their turn', async (t) => {
  const scheduler = makeScheduler({ maxNumSeqs: 2 });
  for (const requestId of [0, 1, 2]) scheduler.add(generate(requestId, 2, 2));
  t.same(step(scheduler).batch, ['0: 0+2*', '1: 0+2*']);
  t.same(step(scheduler).batch, ['0: 2+1*', '1: 2+1*']);
  t.same(step(scheduler).batch, ['2: 0+2*']);
});

t.test('nobody overtakes a request that does not fit yet', async (t) => {
  const scheduler = makeScheduler({ numBlocks: 6 });
  scheduler.add(generate(0, 8, 2));
  scheduler.add(generate(1, 16, 2));
  scheduler.add(generate(2, 1, 2));
  t.same(step(scheduler).batch, ['0: 0+8*']);
  t.same(step(scheduler).batch, ['0: 8+1*'], 'request 2 would fit beside it, and waits');
  t.same(step(scheduler).batch, ['1: 0+8']);
});

t.test('when blocks run out the newest gives way, and is computed again from its tokens', async (t) => {
  const scheduler = makeScheduler({ numBlocks: 6, maxNumBatchedTokens: 32 });
  scheduler.add(generate(0, 8, 16));
  scheduler.add(generate(1, 7, 9));
  t.same(step(scheduler).batch, ['0: 0+8*', '1: 0+7*']);
  for (let i = 0; i < 4; i++) step(scheduler);
  t.match(scheduler.counts, { numFreeBlocks: 0, numPreemptions: 0 });
  t.same(step(scheduler).batch, ['0: 12+1*'], 'request 0 takes a fourth block from request 1');
  t.match(scheduler.counts, { numRunning: 1, numWaiting: 1, numPreemptions: 1, numFreeBlocks: 2 });
  const batches: (string[] | null)[] = [];
  while (scheduler.hasWork) batches.push(step(scheduler).batch);
  t.ok(batches.flat().includes('1: 0+12*'), 'request 1 comes back with its prompt and the five tokens that it had');
  t.match(scheduler.counts, { numFreeBlocks: 6, numFreeSlots: 4 });
});

t.test('a preempted sequence waits for the token that is still on its way', async (t) => {
  const scheduler = makeScheduler({ numBlocks: 6, maxNumBatchedTokens: 32 });
  scheduler.add(generate(0, 8, 16));
  scheduler.add(generate(1, 7, 9));
  for (let i = 0; i < 4; i++) step(scheduler);
  const batches = [scheduler.schedule(), scheduler.schedule()] as ScheduledBatch[];
  t.same(batches.map(inShort), [['0: 11+1*', '1: 10+1*'], ['0: 12+1*']]);
  scheduler.abort(0);
  t.match(scheduler.counts, { numFreeBlocks: 6, numWaiting: 1, numPreemptions: 1 });
  t.equal(scheduler.schedule(), null, 'there is room, but the last token of request 1 is not known here');
  for (const batch of batches) scheduler.commit(batch, resultOf(batch), 1);
  t.same(step(scheduler).batch, ['1: 0+12*']);
});

t.test('blocks that a preemption frees are not given to a newcomer in the same step', async (t) => {
  const scheduler = makeScheduler({ numBlocks: 5, maxNumBatchedTokens: 32 });
  scheduler.add(generate(0, 4, 12));
  scheduler.add(generate(1, 4, 12));
  step(scheduler);
  for (let i = 0; i < 4; i++) step(scheduler);
  t.match(scheduler.counts, { numPreemptions: 0, numFreeBlocks: 1 });
  scheduler.add(generate(2, 1, 1));
  const { batch } = step(scheduler);
  t.same(batch, ['0: 8+1*']);
  t.match(scheduler.counts, { numPreemptions: 1, numRunning: 1, numWaiting: 2, numFreeBlocks: 2 });
  t.same(step(scheduler).batch, ['0: 9+1*'], 'request 1 is before request 2, and needs three blocks');
});

t.test('rows of the LM head are shared like tokens', async (t) => {
  const scheduler = makeScheduler({ maxNumLogitRows: 4, maxNumBatchedTokens: 32 });
  scheduler.add(logits(0, 6));
  scheduler.add(generate(1, 3));
  t.same(step(scheduler).batch, ['0: 0+4', '1: 0+2'], 'no row is left to sample from, so the last token waits');
  const { batch, updates } = step(scheduler);
  t.same(batch, ['0: 4+2', '1: 2+1*']);
  t.match(updates, [
    { requestId: 0, finished: true },
    { requestId: 1, tokenIds: [5] },
  ]);
  t.same(step(scheduler).batch, ['1: 3+1*']);
});

t.test('an aborted request leaves at once, wherever it is', async (t) => {
  const scheduler = makeScheduler({ maxNumSeqs: 1 });
  scheduler.add(generate(0, 4));
  scheduler.add(generate(1, 4));
  const batch = scheduler.schedule() as ScheduledBatch;
  scheduler.abort(1);
  scheduler.abort(0);
  scheduler.abort(7);
  t.notOk(scheduler.hasWork);
  t.same(scheduler.commit(batch, resultOf(batch), 1), []);
  t.match(scheduler.counts, { numFreeBlocks: 100, numFreeSlots: 1, numWaiting: 0 });
});

t.test('a request that needs more than there is is refused, one that just fits is not', async (t) => {
  const scheduler = makeScheduler({ numBlocks: 4, maxModelLen: 32 });
  scheduler.add(generate(0, 10, 7));
  t.throws(() => scheduler.add(generate(1, 10, 8)), { code: 'ERR_REQUEST', message: /need at most 17 tokens .* received 18 tokens/ });
  t.throws(() => scheduler.add(generate(2, 32, 1)), { code: 'ERR_REQUEST', message: /at most 31 tokens .* received 32 tokens/ });
  t.throws(() => scheduler.add(generate(3, 0)), { code: 'ERR_REQUEST', message: /at least one prompt token/ });
  scheduler.add(logits(4, 16));
  t.throws(() => scheduler.add(logits(5, 17)), { code: 'ERR_REQUEST' });
  t.throws(() => scheduler.add(logits(6, 33)), { code: 'ERR_REQUEST', message: /at most 32 tokens/ });
  t.equal(scheduler.counts.numWaiting, 2);
});
