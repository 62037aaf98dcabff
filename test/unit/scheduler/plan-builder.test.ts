/** A scheduled batch as the flat arrays of a plan. */
import t from 'tap';
import { LogitRowKind } from '../../../protocol/step-plan.ts';
import type { ScheduledSequence } from '../../../rank/scheduler/batch.ts';
import { buildPlan } from '../../../rank/scheduler/plan-builder.ts';
import { type EngineRequest, greedyParams, type SlotParams } from '../../../rank/scheduler/request.ts';
import { Sequence } from '../../../rank/scheduler/sequence.ts';
import { generateRequest, logitsRequest } from '../../helpers/requests.ts';

const params: SlotParams = {
  ...greedyParams,
  temperature: 0.5,
  topP: 0.25,
  minP: 0.125,
  topK: 9,
  seed: 0xfedcba9876543210n,
  presencePenalty: 0.5,
  frequencyPenalty: -0.25,
  repetitionPenalty: 1.5,
  minTokens: 2,
  logitBias: [
    [3, -100],
    [8, 0.5],
  ],
  allowedTokenIds: [3, 8, 9],
  badWords: [[5], [6, 7]],
  numLogprobs: 4,
  numPromptLogprobs: 0,
};

function makeSequence(type: EngineRequest['type'], slot: number, promptTokenIds: number[], blockTable: number[], index = 0): Sequence {
  const overrides = { params, eosTokenIds: [1], stopTokenIds: [2] };
  const request = type === 'logits' ? logitsRequest(slot, promptTokenIds) : generateRequest(slot, promptTokenIds, overrides);
  const sequence = new Sequence(request, 100, 0, index);
  sequence.slot = slot;
  sequence.blockTable.push(...blockTable);
  return sequence;
}

t.test('prefill, decode and logits mix in one plan', async (t) => {
  const { sample, promptLogprobs } = LogitRowKind;
  const whole = { admits: false, fromSlot: false, samples: false, firstRow: 0, drafting: null, copy: null };
  const batch: ScheduledSequence[] = [
    {
      ...whole,
      sequence: makeSequence('generate', 4, [1, 2, 3, 4, 5], [7, 8]),
      start: 5,
      numTokens: 1,
      firstRow: 5,
      samples: true,
      fromSlot: true,
    },
    {
      ...whole,
      sequence: makeSequence('generate', 1, [11, 12, 13, 14, 15, 16], [3, 2, 1], 3),
      start: 0,
      numTokens: 3,
      admits: true,
      copy: [4, 3],
    },
    { ...whole, sequence: makeSequence('logits', 0, [21, 22, 23], [9]), start: 0, numTokens: 2, admits: true },
    { ...whole, sequence: makeSequence('generate', 2, [31, 32, 33, 34, 35], [5, 6]), start: 3, numTokens: 2, firstRow: 3, samples: true },
  ];
  t.same(buildPlan(12, batch, { blockSize: 4, hasDraftModel: false }), {
    step: 12,
    slots: Int32Array.of(4, 1, 0, 2),
    tokenIds: Int32Array.of(-1, 11, 12, 13, 21, 22, 34, 35),
    cuQueryLens: Int32Array.of(0, 1, 4, 6, 8),
    contextLens: Int32Array.of(6, 3, 2, 5),
    blockCopies: Int32Array.of(4, 3),
    blockTables: Int32Array.of(7, 8, 3, 9, 5, 6),
    cuBlocks: Int32Array.of(0, 2, 3, 4, 6),
    numDrafts: new Int32Array(0),
    draft: null,
    logitRows: Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7),
    logitRowKinds: Int32Array.of(
      sample,
      promptLogprobs,
      promptLogprobs,
      promptLogprobs,
      LogitRowKind.return,
      LogitRowKind.return,
      promptLogprobs,
      sample,
    ),
    logitRowTargets: Int32Array.of(-1, 12, 13, 14, -1, -1, 35, -1),
    hiddenRows: new Int32Array(0),
    admitSlots: Int32Array.of(1, 0),
    admitLens: Int32Array.of(0, 0),
    admitFloats: Float32Array.of(0.5, 0.25, 0.125, 0.5, -0.25, 1.5, 0, 1, 0, 0, 0, 1),
    admitInts: Int32Array.of(9, 3, 6, 2, 4, 0, 0, 0, 0, 3, 0, -1, -1, 0),
    admitSeeds: Uint32Array.of(0x76543210, 0xfedcba98, 0, 0),
    admitLists: {
      history: { values: Int32Array.of(11, 12, 13, 14, 15, 16), offsets: Int32Array.of(0, 6, 6) },
      bias: { values: Int32Array.of(3, 8), offsets: Int32Array.of(0, 2, 2) },
      biasValues: Float32Array.of(-100, 0.5),
      allowed: { values: Int32Array.of(3, 8, 9), offsets: Int32Array.of(0, 3, 3) },
      stops: { values: Int32Array.of(1, 2), offsets: Int32Array.of(0, 2, 2) },
      badWords: { values: Int32Array.of(5, 6, 7), offsets: Int32Array.of(0, 1, 3) },
      cuBadWords: Int32Array.of(0, 2, 2),
    },
  });
});

t.test('drafts follow the newest token, each with a row to sample; the draft model has tables of its own', async (t) => {
  const { sample } = LogitRowKind;
  const whole = { admits: false, fromSlot: true, samples: true, firstRow: 0, drafting: null, copy: null };
  const decoding = (slot: number, numTokens: number, blockTable: number[], draftBlocks: number[]) => {
    const sequence = makeSequence('generate', slot, new Array(numTokens).fill(9), blockTable);
    sequence.draft.blockTable.push(...draftBlocks);
    return { ...whole, sequence, start: numTokens - 1, firstRow: numTokens - 1, numTokens: 1 };
  };
  const drafts = { tokenIds: null, draftLen: 0 };
  const batch: ScheduledSequence[] = [
    { ...decoding(0, 6, [3, 4], [7, 8]), numTokens: 3, drafting: { numDrafts: 2, tokenIds: [21, 22], draftLen: 0 } },
    { ...decoding(1, 4, [5, 6], [9, 10, 11]), numTokens: 4, drafting: { ...drafts, numDrafts: 3, draftLen: 2 } },
    // No drafts were wanted, and the block table is one block longer than the step needs.
    decoding(2, 3, [1, 2], [12]),
    // The draft model only catches up.
    { ...decoding(3, 5, [13, 14], [15]), drafting: { ...drafts, numDrafts: 0, draftLen: 4 } },
  ];
  const options = { blockSize: 4, hasDraftModel: true };
  const plan = buildPlan(3, batch, options);
  t.match(plan, {
    tokenIds: Int32Array.of(-1, 21, 22, -1, -2, -3, -4, -1, -1),
    cuQueryLens: Int32Array.of(0, 3, 7, 8, 9),
    contextLens: Int32Array.of(8, 7, 3, 5),
    numDrafts: Int32Array.of(2, 3, 0, 0),
    blockTables: Int32Array.of(3, 4, 5, 6, 1, 13, 14),
    cuBlocks: Int32Array.of(0, 2, 4, 5, 7),
    draft: { lens: Int32Array.of(0, 2, 0, 4), blockTables: Int32Array.of(9, 10, 11, 15), cuBlocks: Int32Array.of(0, 0, 3, 3, 4) },
    logitRows: Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8),
    logitRowKinds: new Int32Array(9).fill(sample),
  });
  const { draft, numDrafts } = buildPlan(3, batch.slice(0, 1), options);
  t.same([draft, numDrafts], [null, Int32Array.of(2)], 'a text drafts without the draft model');
  t.same(buildPlan(3, batch.slice(2, 3), options).numDrafts, new Int32Array(0), 'no section where nobody drafts');
});

t.test('what a draft model may propose for comes with its history', async (t) => {
  const whole = { fromSlot: false, samples: true, firstRow: 0, drafting: null, copy: null, admits: true, start: 0 };
  const plain = generateRequest(0, [4, 5], {});
  const again = new Sequence(plain, 100, 0);
  again.tokenIds.push(6);
  again.slot = 0;
  again.blockTable.push(1);
  const batch: ScheduledSequence[] = [
    { ...whole, sequence: again, numTokens: 3 },
    { ...whole, sequence: makeSequence('logits', 1, [7, 8], [2]), numTokens: 2, samples: false },
  ];
  const mayDraft = (hasDraftModel: boolean) => {
    const { admitInts, admitLists } = buildPlan(0, batch, { blockSize: 4, hasDraftModel });
    return [admitInts[6], admitInts[13], [...admitLists.history.values]];
  };
  t.same(mayDraft(true), [1, 0, [4, 5, 6]], 'prompt and output; nothing for logits');
  t.same(mayDraft(false), [0, 0, []], 'without it nothing looks back');
});
