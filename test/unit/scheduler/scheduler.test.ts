/** The schedule as a pure function: the sequences of each step, their numbers of tokens, and preemption. */
import t from 'tap';
import { emptyResult } from '../../../protocol/step-result.ts';
import { numRowsReturned, type ScheduledBatch } from '../../../rank/scheduler/batch.ts';
import type { SchedulerLimits } from '../../../rank/scheduler/limits.ts';
import { greedyParams } from '../../../rank/scheduler/request.ts';
import { type BatchResult, readResult } from '../../../rank/scheduler/result-reader.ts';
import { Scheduler } from '../../../rank/scheduler/scheduler.ts';
import { generateRequest, logitsRequest, smallLimits } from '../../helpers/requests.ts';

const sizes = { vocabSize: 1, sampleVocabSize: 1, hiddenSize: 1 };

function makeScheduler(overrides: Partial<SchedulerLimits> = {}): Scheduler {
  return new Scheduler({ ...smallLimits, ...overrides });
}

function generate(requestId: number, numPromptTokens: number, maxTokens = 10, eosTokenIds: number[] = []) {
  return generateRequest(requestId, new Array(numPromptTokens).fill(1), { maxTokens, eosTokenIds });
}

function logits(requestId: number, numPromptTokens: number) {
  return logitsRequest(requestId, new Array(numPromptTokens).fill(1));
}

/** A batch as text, `request: start+tokens` per sequence, with `*` where a token is sampled. */
function inShort(batch: ScheduledBatch | null): string[] | null {
  return (
    batch?.map(({ sequence, start, numTokens, samples }) => `${sequence.request.requestId}: ${start}+${numTokens}${samples ? '*' : ''}`) ??
    null
  );
}

/** The step's result when every sampled token is `tokenId`. */
function resultOf(batch: ScheduledBatch, tokenId = 5): BatchResult {
  const numTokens = Int32Array.from(batch, ({ samples }) => Number(samples));
  const numRows = batch.reduce((sum, scheduled) => sum + numRowsReturned(scheduled), 0);
  const tokenIds = new Int32Array(numTokens.filter(Boolean).length).fill(tokenId);
  return readResult(batch, { ...emptyResult, numTokens, tokenIds, logits: new Float32Array(numRows) }, sizes);
}

/** Schedules a step and commits it immediately. */
function step(scheduler: Scheduler, tokenId?: number) {
  const batch = scheduler.schedule();
  if (batch === null) return { batch: null, updates: [] };
  return { batch: inShort(batch), updates: scheduler.commit(batch, resultOf(batch, tokenId)) };
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
  const finishReasons = batches.map((batch) => scheduler.commit(batch, resultOf(batch))[0]?.finishReason);
  t.same(finishReasons, [null, null, 'length']);
  t.notOk(scheduler.hasWork);
});

t.test('a step that was scheduled past an end is dropped', async (t) => {
  const scheduler = makeScheduler();
  scheduler.add(generate(0, 3, 9, [7]));
  const first = scheduler.schedule() as ScheduledBatch;
  const second = scheduler.schedule() as ScheduledBatch;
  t.match(scheduler.commit(first, resultOf(first, 7)), [{ tokenIds: [7], finishReason: 'stop', finished: true }]);
  t.same(scheduler.commit(second, resultOf(second, 8)), []);
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
  for (const batch of batches) scheduler.commit(batch, resultOf(batch));
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
    { sequence: { request: { requestId: 0 } }, finished: true },
    { sequence: { request: { requestId: 1 } }, tokenIds: [5] },
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
  t.same(scheduler.commit(batch, resultOf(batch)), []);
  t.match(scheduler.counts, { numFreeBlocks: 100, numFreeSlots: 1, numWaiting: 0 });
});

t.test('a prompt that needs more than there is is refused, one that just fits is not', async (t) => {
  const scheduler = makeScheduler({ numBlocks: 4, maxModelLen: 32 });
  scheduler.add(generate(0, 10, 7));
  t.throws(() => scheduler.add(generate(1, 17, 1)), { code: 'ERR_REQUEST', message: /at most 16 tokens .* received 17 tokens/ });
  t.throws(() => scheduler.add(generate(2, 32, 1)), { code: 'ERR_REQUEST', message: /at most 31 tokens .* received 32 tokens/ });
  t.throws(() => scheduler.add(generate(3, 0)), { code: 'ERR_REQUEST', message: /at least one prompt token/ });
  scheduler.add(logits(4, 16));
  t.throws(() => scheduler.add(logits(5, 17)), { code: 'ERR_REQUEST' });
  t.throws(() => scheduler.add(logits(6, 33)), { code: 'ERR_REQUEST', message: /at most 32 tokens/ });
  t.equal(scheduler.counts.numWaiting, 2);
});

t.test('a long prompt leaves room for others, and takes what they leave', async (t) => {
  const scheduler = makeScheduler({ longPrefillTokenThreshold: 3 });
  scheduler.add(generate(0, 30));
  t.same(step(scheduler).batch, ['0: 0+8'], 'nobody else wants the room');
  scheduler.add(generate(1, 4));
  scheduler.add(generate(2, 2));
  t.same(step(scheduler).batch, ['0: 8+3', '1: 0+3', '2: 0+2*']);
  t.same(step(scheduler).batch, ['2: 2+1*', '0: 11+6', '1: 3+1*'], 'three, and the rest of the step');
});

t.test('lower priorities go first, and give way to a higher one that waits', async (t) => {
  const scheduler = makeScheduler({ schedulingPolicy: 'priority', maxNumSeqs: 2, maxNumBatchedTokens: 16 });
  const urgent = (requestId: number, priority: number) => ({ ...generate(requestId, 4, 5), priority });
  for (const [requestId, priority] of [
    [0, 5],
    [1, 1],
    [2, 3],
  ] as const)
    scheduler.add(urgent(requestId, priority));
  t.same(step(scheduler).batch, ['1: 0+4*', '2: 0+4*'], 'not in order of arrival');
  scheduler.add(urgent(3, 1));
  t.same(step(scheduler).batch, ['1: 4+1*', '3: 0+4*'], 'request 2 gave way');
  t.match(scheduler.counts, { numPreemptions: 1, numWaiting: 2 });
  scheduler.add(urgent(4, 1));
  t.same(step(scheduler).batch, ['1: 5+1*', '3: 4+1*'], 'nobody gives way to the same priority');
  t.throws(() => makeScheduler().add(urgent(5, 1)), { code: 'ERR_REQUEST', message: /priority/ });
});

t.test('when blocks run out the lowest priority gives way, and of those the newest', async (t) => {
  const scheduler = makeScheduler({ schedulingPolicy: 'priority', numBlocks: 6, maxNumBatchedTokens: 32 });
  scheduler.add({ ...generate(0, 4, 12), priority: 2 });
  scheduler.add({ ...generate(1, 4, 12), priority: 1 });
  scheduler.add({ ...generate(2, 4, 12), priority: 2 });
  t.same(step(scheduler).batch, ['1: 0+4*', '0: 0+4*', '2: 0+4*']);
  for (let i = 0; scheduler.counts.numPreemptions === 0 && i < 20; i++) step(scheduler);
  t.same(
    step(scheduler).batch?.map((share) => share[0]),
    ['1', '0'],
  );
});

/** Distinct prompts, which share nothing unintentionally. */
const prompt = (length: number, first: number) => Array.from({ length }, (_, i) => first + i);

t.test('a prompt begins with the blocks that are cached, less its last token', async (t) => {
  const scheduler = makeScheduler({ enablePrefixCaching: true, maxNumBatchedTokens: 32 });
  scheduler.add(generateRequest(0, prompt(12, 0), { maxTokens: 1 }));
  scheduler.add(generateRequest(1, prompt(12, 0), { maxTokens: 1 }));
  t.same(step(scheduler).batch, ['0: 0+12*', '1: 0+12*'], 'nothing is cached in the step that computes it');
  scheduler.add(generateRequest(2, [...prompt(12, 0), 77], { maxTokens: 1 }));
  t.same(step(scheduler).batch, ['2: 12+1*']);
  scheduler.add(generateRequest(3, prompt(12, 0), { maxTokens: 1 }));
  const batch = scheduler.schedule() as ScheduledBatch;
  t.same(inShort(batch), ['3: 11+1*']);
  t.same(batch[0]?.copy?.length, 2, 'the last block is another copy, since it is written');
  t.equal(batch[0]?.sequence.numHitTokens, 11);
  t.match(scheduler.counts, { numPrefixQueryTokens: 12 + 12 + 13 + 12, numPrefixHitTokens: 12 + 11 });
  const logprobs = { params: { ...greedyParams, numPromptLogprobs: 0 }, maxTokens: 1 };
  scheduler.add(generateRequest(4, prompt(12, 0), logprobs));
  scheduler.add(logitsRequest(5, prompt(4, 0)));
  t.same(inShort(scheduler.schedule()), ['4: 0+8', '5: 0+0'].slice(0, 1), 'rows that are handed back are all computed');
});

t.test('what a sequence generated is cached too', async (t) => {
  const scheduler = makeScheduler({ enablePrefixCaching: true });
  scheduler.add(generateRequest(0, prompt(3, 0), { maxTokens: 6 }));
  while (scheduler.hasWork) step(scheduler, 50);
  scheduler.add(generateRequest(1, [...prompt(3, 0), 50, 50, 50, 50, 50, 51], { maxTokens: 1 }));
  t.same(step(scheduler).batch, ['1: 8+1*']);
});

t.test('the samples of a request share its prompt', async (t) => {
  const scheduler = makeScheduler({ maxNumBatchedTokens: 32 });
  scheduler.add(generateRequest(0, prompt(10, 0), { n: 3, maxTokens: 4 }));
  t.same(step(scheduler).batch, ['0: 0+10*'], 'the others wait for it');
  const batch = scheduler.schedule() as ScheduledBatch;
  t.same(inShort(batch), ['0: 10+1*', '0: 9+1*', '0: 9+1*']);
  t.same(
    batch.map(({ sequence }) => sequence.index),
    [0, 1, 2],
  );
  t.equal(scheduler.counts.numFreeBlocks, 100 - 5, 'two blocks in common, a third for each');
  t.same(
    batch.map(({ copy }) => copy?.[0]),
    [undefined, batch[0]?.sequence.blockTable[2], batch[0]?.sequence.blockTable[2]],
  );
  scheduler.commit(batch, resultOf(batch));
  scheduler.abort(0, 1);
  t.same(step(scheduler).batch, ['0: 11+1*', '0: 10+1*'], 'one sample may go alone');
  scheduler.abort(0);
  t.match(scheduler.counts, { numRunning: 0, numFreeBlocks: 100, numFreeSlots: 4 });
});

t.test('samples whose first is gone come in by themselves', async (t) => {
  const scheduler = makeScheduler({ maxNumSeqs: 1, maxNumBatchedTokens: 32 });
  scheduler.add(generateRequest(0, prompt(6, 0), { n: 2, maxTokens: 2 }));
  t.same(step(scheduler).batch, ['0: 0+6*']);
  t.same(step(scheduler).batch, ['0: 6+1*']);
  t.same(step(scheduler).batch, ['0: 0+6*']);
  t.same(step(scheduler).batch, ['0: 6+1*']);
  t.notOk(scheduler.hasWork);
});

t.test('newcomers without end starve nobody', async (t) => {
  for (const longPrefillTokenThreshold of [0, 3]) {
    const scheduler = makeScheduler({ numBlocks: 24, maxNumSeqs: 3, longPrefillTokenThreshold });
    scheduler.add(generate(0, 50, 12));
    let longestWait = 0;
    const arrivals = new Map([[0, 0]]);
    for (let i = 1; scheduler.counts.numRunning + scheduler.counts.numWaiting > 0 && arrivals.has(0); i++) {
      arrivals.set(i, i);
      scheduler.add(generate(i, 1 + (i % 7), 1 + (i % 5)));
      const { updates } = step(scheduler);
      for (const { sequence, finished } of updates) {
        const { requestId } = sequence.request;
        if (finished) longestWait = Math.max(longestWait, i - (arrivals.get(requestId) as number));
        if (finished) arrivals.delete(requestId);
      }
      t.ok(i < 200, 'the long prompt comes to its end');
      if (i >= 200) break;
    }
    // 50 prompt tokens at three per step, and twelve to generate, beside two other requests.
    t.ok(longestWait < 100, `nobody waited for more than ${longestWait} steps`);
  }
});

t.test('short prompts do not wait for a long one', async (t) => {
  const stepsToFirstToken = (longPrefillTokenThreshold: number) => {
    const scheduler = makeScheduler({ longPrefillTokenThreshold });
    scheduler.add(generate(0, 60));
    step(scheduler);
    scheduler.add(generate(1, 2));
    for (let steps = 1; ; steps++) if (step(scheduler).updates.some(({ sequence }) => sequence.request.requestId === 1)) return steps;
  };
  t.equal(stepsToFirstToken(0), 7, 'until then the long one takes all eight tokens of a step');
  t.equal(stepsToFirstToken(4), 1);
});
