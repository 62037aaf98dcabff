/** A batch as the flat arrays of a plan. */
import t from 'tap';
import { LogitRowKind } from '../../protocol/step-plan.ts';
import { type EngineRequest, greedyParams, type SlotParams } from '../../rank/engine-messages.ts';
import { buildPlan } from '../../rank/plan-builder.ts';
import type { ScheduledSequence } from '../../rank/scheduled-batch.ts';
import { Sequence } from '../../rank/sequence.ts';
import { generateRequest, logitsRequest } from '../helpers/requests.ts';

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
