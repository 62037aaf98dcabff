/**
 * The schedule with drafts that a test chooses: their share of a step, rejected drafts, and their priority below
 * tokens.
 */
import t from 'tap';
import { emptyResult } from '../../../protocol/step-result.ts';
import type { ScheduledBatch } from '../../../rank/scheduler/batch.ts';
import type { Drafter, DraftRoom } from '../../../rank/scheduler/drafter.ts';
import type { SchedulerLimits } from '../../../rank/scheduler/limits.ts';
import { type BatchResult, readResult } from '../../../rank/scheduler/result-reader.ts';
import { Scheduler } from '../../../rank/scheduler/scheduler.ts';
import type { Drafting } from '../../../rank/scheduler/sequence.ts';
import { generateRequest, smallLimits } from '../../helpers/requests.ts';

const sizes = { vocabSize: 1, sampleVocabSize: 1, hiddenSize: 1 };
/** Drafts given as tokens. */
const given = (...tokenIds: number[]): Drafting => ({ numDrafts: tokenIds.length, tokenIds, draftLen: 0 });
/** Drafts by the draft model, after it has processed `draftLen` tokens. */
const proposed = (numDrafts: number, draftLen: number): Drafting => ({ numDrafts, tokenIds: null, draftLen });

/** Returns the drafts that the test chose for each request. */
class ScriptedDrafter implements Drafter {
  chosen: Record<number, Drafting | 'wait'> = {};
  room: Pick<DraftRoom, 'numTokens' | 'numLogitRows'> | null = null;
  numPromptTokens = 0;
  readonly outcomes: (readonly (number | null)[])[] = [];
  readonly endedRequests: number[] = [];

  choose(sequences: Parameters<Drafter['choose']>[0], room: DraftRoom) {
    this.room = room;
    this.numPromptTokens = room.numPromptTokens();
    return new Map(
      sequences.flatMap((sequence) => {
        const drafting = this.chosen[sequence.request.requestId];
        return drafting === undefined ? [] : [[sequence, drafting] as const];
      }),
    );
  }
  planned(): void {}
  committed(_: ScheduledBatch, numAccepted: readonly (number | null)[]): void {
    this.outcomes.push(numAccepted);
  }
  ended({ request }: Parameters<Drafter['ended']>[0]): void {
    this.endedRequests.push(request.requestId);
  }
  lost(): void {}
}

function make(overrides: Partial<SchedulerLimits> = {}) {
  const drafter = new ScriptedDrafter();
  return {
    scheduler: new Scheduler({ ...smallLimits, maxNumBatchedTokens: 16, maxNumLogitRows: 16, ...overrides }, null, drafter),
    drafter,
  };
}

const generate = (requestId: number, numPromptTokens: number, maxTokens = 20, eosTokenIds: number[] = []) =>
  generateRequest(requestId, new Array(numPromptTokens).fill(1), { maxTokens, eosTokenIds });

function inShort(batch: ScheduledBatch | null): string[] | null {
  const one = ({ sequence, start, numTokens, samples, drafting }: ScheduledBatch[number]) =>
    `${sequence.request.requestId}: ${start}+${numTokens}${samples ? '*' : ''}${drafting === null ? '' : ` d${drafting.numDrafts}`}`;
  return batch?.map(one) ?? null;
}

/** The step's result when `accepted` drafts of each request are accepted: tokens 5, or those of `tokens`. */
function resultOf(batch: ScheduledBatch, accepted: Record<number, number> = {}, tokens: Record<number, number[]> = {}): BatchResult {
  const sampled = batch.map(({ sequence, samples }) => {
    const { requestId } = sequence.request;
    return samples ? (tokens[requestId] ?? new Array<number>(1 + (accepted[requestId] ?? 0)).fill(5)) : [];
  });
  const [numTokens, tokenIds] = [Int32Array.from(sampled, ({ length }) => length), Int32Array.from(sampled.flat())];
  return readResult(batch, { ...emptyResult, numTokens, tokenIds }, sizes);
}

function step(scheduler: Scheduler, accepted: Record<number, number> = {}, tokens: Record<number, number[]> = {}) {
  const batch = scheduler.schedule() as ScheduledBatch;
  return { batch: inShort(batch), updates: scheduler.commit(batch, resultOf(batch, accepted, tokens)) };
}

t.test('drafts follow the newest token, and take tokens and rows of the step', async (t) => {
  const { scheduler, drafter } = make({ maxNumBatchedTokens: 12 });
  scheduler.add(generate(0, 3));
  step(scheduler);
  scheduler.add(generate(1, 20));
  drafter.chosen = { 0: given(5, 5, 6) };
  const { batch, updates } = step(scheduler, { 0: 2 });
  t.same(batch, ['0: 3+4* d3', '1: 0+8'], 'a prompt gets what drafts leave');
  t.match(updates, [
    { tokenIds: [5, 5, 5], drafted: { numDrafts: 3, numAccepted: 2 } },
    { tokenIds: [], drafted: null },
  ]);
  t.same(drafter.outcomes.at(-1), [2, null]);
  t.equal(drafter.numPromptTokens, 20);
  drafter.chosen = {};
  t.same(step(scheduler).batch, ['0: 6+1*', '1: 8+11'], 'one draft of three went');
  t.match(scheduler.counts, { numFreeDraftBlocks: 100 });
});

t.test('a plan that is made before drafts are judged counts them all; what does not stay is taken back', async (t) => {
  const { scheduler, drafter } = make();
  scheduler.add(generate(0, 3));
  step(scheduler);
  drafter.chosen = { 0: proposed(3, 4) };
  const first = scheduler.schedule() as ScheduledBatch;
  const [sequence] = first.map((share) => share.sequence);
  t.equal(sequence?.draft.numUnseenTokens, 2);
  drafter.chosen = { 0: proposed(2, 2) };
  const second = scheduler.schedule() as ScheduledBatch;
  t.same([first, second].map(inShort), [['0: 3+4* d3'], ['0: 7+3* d2']]);
  t.match(sequence, { numTokens: 11, numCachedTokens: 10 });
  scheduler.commit(first, resultOf(first, { 0: 1 }));
  t.match(sequence, { numTokens: 9, numCachedTokens: 8, numPendingTokens: 3 });
  scheduler.commit(second, resultOf(second, { 0: 0 }));
  t.match(sequence, { numTokens: 7, numCachedTokens: 6, numPendingTokens: 0 });
  t.equal(sequence?.draft.numUnseenTokens, 2, 'at most: the newest, and the last draft where it stays');
  drafter.chosen = {};
  t.same(step(scheduler).batch, ['0: 6+1*']);
});

t.test('drafts of a text are unseen by the draft model, as far as they stay', async (t) => {
  const { scheduler, drafter } = make();
  scheduler.add(generate(0, 3));
  step(scheduler);
  drafter.chosen = { 0: given(5, 6, 7) };
  const batch = scheduler.schedule() as ScheduledBatch;
  const { draft } = (batch[0] as ScheduledBatch[number]).sequence;
  t.equal(draft.numUnseenTokens, 4 + 4);
  scheduler.commit(batch, resultOf(batch, { 0: 1 }));
  t.equal(draft.numUnseenTokens, 6, 'all of the text');
  drafter.chosen = { 0: proposed(0, 4) };
  t.same(step(scheduler).batch, ['0: 5+1* d0']);
  t.equal(draft.numUnseenTokens, 3);
});

t.test('what the draft model has not seen is never underestimated, whatever was planned before a text was judged', async (t) => {
  const { scheduler, drafter } = make();
  scheduler.add(generate(0, 3));
  step(scheduler);
  // 4 tokens are unseen by the draft model. Then: a step with two given drafts, both rejected (5 unseen); a step with
  // drafts of the draft model, which sees all; a plain step.
  const batches = [given(5, 6), proposed(2, 7), undefined].map((drafting) => {
    drafter.chosen = drafting === undefined ? {} : { 0: drafting };
    return scheduler.schedule() as ScheduledBatch;
  }) as [ScheduledBatch, ScheduledBatch, ScheduledBatch];
  const { draft } = (batches[0][0] as ScheduledBatch[number]).sequence;
  scheduler.commit(batches[0], resultOf(batches[0], { 0: 0 }));
  scheduler.commit(batches[1], resultOf(batches[1], { 0: 2 }));
  t.equal(draft.numUnseenTokens, 3, 'the last draft, the token after it, and that of the plain step');
});

t.test('no more is planned than may still come, and goes on when drafts are taken back', async (t) => {
  const { scheduler, drafter } = make();
  scheduler.add(generate(0, 3, 5));
  step(scheduler);
  drafter.chosen = { 0: given(5, 6, 7) };
  const batch = scheduler.schedule() as ScheduledBatch;
  t.equal(scheduler.schedule(), null, 'five tokens may be on their way');
  scheduler.commit(batch, resultOf(batch));
  drafter.chosen = {};
  for (const [start, finishReason] of [
    [4, null],
    [5, null],
    [6, 'length'],
  ] as const) {
    const { batch, updates } = step(scheduler);
    t.same(batch, [`0: ${start}+1*`]);
    t.equal(updates[0]?.finishReason, finishReason);
  }
  t.match(scheduler.counts, { numRunning: 0, numFreeBlocks: 100, numFreeSlots: 4 });
});

t.test('a text that ends among drafts ends there, and what was planned after it is dropped', async (t) => {
  const { scheduler, drafter } = make({ enablePrefixCaching: true });
  scheduler.add(generate(0, 3, 20, [7]));
  step(scheduler);
  drafter.chosen = { 0: given(6, 7, 8) };
  const first = scheduler.schedule() as ScheduledBatch;
  const second = scheduler.schedule() as ScheduledBatch;
  const [update] = scheduler.commit(first, resultOf(first, {}, { 0: [6, 7, 8, 9] }));
  t.match(update, { tokenIds: [6, 7], finishReason: 'stop', finished: true, drafted: { numDrafts: 3, numAccepted: 3 } });
  t.same(scheduler.commit(second, resultOf(second, { 0: 3 })), []);
  t.same(drafter.outcomes.at(-1), [null]);
  t.same(drafter.endedRequests, [0]);
  t.match(scheduler.counts, { numRunning: 0, numFreeBlocks: 100, numFreeDraftBlocks: 100, numCachedBlocks: 1 });
});

t.test('blocks of drafts that are not judged yet have no name', async (t) => {
  const { scheduler, drafter } = make({ enablePrefixCaching: true });
  scheduler.add(generate(0, 3));
  step(scheduler);
  drafter.chosen = { 0: given(6, 6, 6, 6, 6) };
  const first = scheduler.schedule() as ScheduledBatch;
  drafter.chosen = {};
  const second = scheduler.schedule() as ScheduledBatch;
  t.same(inShort(second), ['0: 9+1*'], 'two blocks are full if all stay');
  t.equal(scheduler.counts.numCachedBlocks, 1, 'prompt and first token are known');
  scheduler.commit(first, resultOf(first, {}, { 0: [6, 8] }));
  t.equal(scheduler.counts.numCachedBlocks, 1, 'the fifth token is, and three of its block are not');
  scheduler.commit(second, resultOf(second));
  for (let i = 0; i < 2; i++) step(scheduler);
  t.equal(scheduler.counts.numCachedBlocks, 2);
});

t.test('nobody gives way to drafts: they take what is free when everybody has their next token, and leave a block for each', async (t) => {
  const { scheduler, drafter } = make({ numBlocks: 4 });
  scheduler.add(generate(0, 4, 6));
  scheduler.add(generate(1, 4, 6));
  step(scheduler);
  // Two blocks each; the drafts would need a third one.
  drafter.chosen = { 0: given(5, 5, 5, 5), 1: proposed(4, 5) };
  t.same(step(scheduler).batch, ['0: 4+1*', '1: 4+1*']);
  t.match(scheduler.counts, { numPreemptions: 0, numFreeBlocks: 0 });
  drafter.chosen = { 0: given(5, 5), 1: proposed(2, 6) };
  t.same(step(scheduler).batch, ['0: 5+3* d2', '1: 5+3* d2'], 'what lies in blocks that they have is free');
  t.match(scheduler.counts, { numPreemptions: 0 });
});

t.test('blocks of drafts that went are free again', async (t) => {
  const { scheduler, drafter } = make({ numBlocks: 8 });
  scheduler.add(generate(0, 3));
  step(scheduler);
  drafter.chosen = { 0: proposed(9, 4) };
  const first = scheduler.schedule() as ScheduledBatch;
  t.match(scheduler.counts, { numFreeBlocks: 4, numFreeDraftBlocks: 5 });
  drafter.chosen = {};
  const second = scheduler.schedule() as ScheduledBatch;
  scheduler.commit(first, resultOf(first, { 0: 0 }));
  t.match(scheduler.counts, { numFreeBlocks: 6, numFreeDraftBlocks: 6 }, 'six tokens, with the one under way');
  scheduler.commit(second, resultOf(second));
  while (scheduler.hasWork) step(scheduler);
  t.match(scheduler.counts, { numFreeBlocks: 8, numFreeDraftBlocks: 8 });
});

t.test('without blocks for the draft model there are no drafts of it, and the step goes on', async (t) => {
  const { scheduler, drafter } = make({ numBlocks: 14, enablePrefixCaching: true, maxNumBatchedTokens: 32 });
  // Three samples share the four blocks of their prompt, except for a copy of the last; their draft blocks are not
  // shared.
  scheduler.add({ ...generate(0, 16, 4), n: 3 });
  for (let i = 0; i < 2; i++) step(scheduler);
  drafter.chosen = { 0: proposed(0, 18) };
  t.match(step(scheduler).batch, [/\* d0$/, /\* d0$/, /\*$/], 'five blocks each, of fourteen');
  t.match(scheduler.counts, { numPreemptions: 0, numFreeDraftBlocks: 4 });
});

t.test('drafts that would take all the room there is keep no newcomer out', async (t) => {
  for (const limits of [{ maxNumBatchedTokens: 8 }, { maxNumLogitRows: 8, maxNumBatchedTokens: 32 }]) {
    const { scheduler, drafter } = make({ ...limits, maxNumSeqs: 3, numBlocks: 200 });
    for (const requestId of [0, 1]) scheduler.add(generate(requestId, 3, 60));
    while (scheduler.counts.numRunning < 2) step(scheduler);
    step(scheduler);
    const most = () => {
      const each = Math.min(9, Math.floor(Math.min(drafter.room?.numTokens ?? 0, drafter.room?.numLogitRows ?? 0) / 2));
      return given(...new Array<number>(each).fill(5));
    };
    // The room is known only when drafts are asked for, so the choice is computed then.
    drafter.chosen = Object.defineProperties({}, { 0: { get: most }, 1: { get: most } }) as typeof drafter.chosen;
    t.same(step(scheduler).batch, ['0: 4+4* d3', '1: 4+4* d3'], 'all of it');
    scheduler.add(generate(2, 8, 3));
    const steps: string[] = [];
    while (!steps.some((share) => /^2: .*\*$/.test(share)) && steps.length < 40) steps.push(...(step(scheduler).batch ?? []));
    t.ok(steps.length <= 12, `the newcomer has its first token after ${steps.join(', ')}`);
    t.ok(steps.includes('0: 5+2* d1'), 'and others draft meanwhile');
  }
});

t.test('a sequence that waits for its tokens is left out, and nobody else', async (t) => {
  const { scheduler, drafter } = make();
  for (const requestId of [0, 1]) scheduler.add(generate(requestId, 3));
  const first = scheduler.schedule() as ScheduledBatch;
  drafter.chosen = { 0: 'wait' };
  const second = scheduler.schedule() as ScheduledBatch;
  t.same(inShort(second), ['1: 3+1*']);
  drafter.chosen = { 0: 'wait', 1: 'wait' };
  t.equal(scheduler.schedule(), null);
  scheduler.commit(first, resultOf(first));
  drafter.chosen = { 0: given(5, 5) };
  t.same(inShort(scheduler.schedule()), ['0: 3+3* d2', '1: 4+1*']);
});

t.test('a sequence that gives way with drafts under way comes back with those that stayed', async (t) => {
  const { scheduler, drafter } = make({ numBlocks: 6, maxNumBatchedTokens: 32, maxNumLogitRows: 32 });
  scheduler.add(generate(0, 8, 16));
  scheduler.add(generate(1, 7, 9));
  step(scheduler);
  for (let i = 0; i < 2; i++) step(scheduler);
  drafter.chosen = { 0: given(5), 1: proposed(2, 10) };
  const first = scheduler.schedule() as ScheduledBatch;
  t.same(inShort(first), ['0: 10+2* d1', '1: 9+3* d2']);
  drafter.chosen = {};
  const second = scheduler.schedule() as ScheduledBatch;
  t.same(inShort(second), ['0: 12+1*'], 'request 0 takes a fourth block from request 1');
  const last = (first[1] as ScheduledBatch[number]).sequence;
  t.match(last, { numPendingTokens: 3, numCachedTokens: 0, slot: -1 });
  t.same(last.draft.blockTable, []);
  scheduler.commit(first, resultOf(first, { 0: 1, 1: 1 }));
  t.match(last, { numPendingTokens: 0, numCachedTokens: 0, numTokens: 12 });
  t.ok(last.draft.numUnseenTokens >= 12, 'the draft model begins again too');
  scheduler.commit(second, resultOf(second));
  const batches: (string[] | null)[] = [];
  while (scheduler.hasWork) batches.push(step(scheduler).batch);
  t.ok(batches.flat().includes('1: 0+12*'), 'with its prompt and the five tokens that it had');
  t.match(scheduler.counts, { numFreeBlocks: 6, numFreeDraftBlocks: 6, numFreeSlots: 4 });
});
