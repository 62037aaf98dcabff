/** A batch as the flat arrays of a plan, and blocks as the block manager hands them out. */
import t from 'tap';
import { LogitRowKind } from '../../protocol/step-plan.ts';
import { BlockManager } from '../../rank/block-manager.ts';
import type { EngineRequest } from '../../rank/engine-messages.ts';
import { buildPlan } from '../../rank/plan-builder.ts';
import type { ScheduledSequence } from '../../rank/scheduler.ts';
import { Sequence } from '../../rank/sequence.ts';

const params = { temperature: 0.5, topP: 0.25, minP: 0.125, topK: 9, seed: 0xfedcba9876543210n, sampleIndex: 3 };

function makeSequence(type: EngineRequest['type'], slot: number, promptTokenIds: number[], blockTable: number[]): Sequence {
  const request: EngineRequest =
    type === 'logits'
      ? { type, requestId: slot, promptTokenIds }
      : { type, requestId: slot, promptTokenIds, maxTokens: 9, eosTokenIds: [], params };
  const sequence = new Sequence(request, 100);
  sequence.slot = slot;
  sequence.blockTable.push(...blockTable);
  return sequence;
}

t.test('prefill, decode and logits mix in one plan', async (t) => {
  const whole = { admits: false, fromSlot: false, samples: false, returnsLogits: false };
  const batch: ScheduledSequence[] = [
    { ...whole, sequence: makeSequence('generate', 4, [1, 2, 3, 4, 5], [7, 8]), start: 5, numTokens: 1, samples: true, fromSlot: true },
    { ...whole, sequence: makeSequence('generate', 1, [11, 12, 13, 14, 15, 16], [3, 2, 1]), start: 0, numTokens: 3, admits: true },
    { ...whole, sequence: makeSequence('logits', 0, [21, 22, 23], [9]), start: 0, numTokens: 2, returnsLogits: true, admits: true },
    { ...whole, sequence: makeSequence('generate', 2, [31, 32, 33, 34, 35], [5, 6]), start: 3, numTokens: 2, samples: true },
  ];
  t.same(buildPlan(12, batch, 4), {
    step: 12,
    slots: Int32Array.of(4, 1, 0, 2),
    tokenIds: Int32Array.of(-1, 11, 12, 13, 21, 22, 34, 35),
    cuQueryLens: Int32Array.of(0, 1, 4, 6, 8),
    contextLens: Int32Array.of(6, 3, 2, 5),
    blockCopies: new Int32Array(0),
    blockTables: [Int32Array.of(7, 8, 3, 9, 5, 6)],
    cuBlocks: [Int32Array.of(0, 2, 3, 4, 6)],
    logitRows: Int32Array.of(0, 4, 5, 7),
    logitRowKinds: Int32Array.of(LogitRowKind.sample, LogitRowKind.return, LogitRowKind.return, LogitRowKind.sample),
    admitSlots: Int32Array.of(1, 0),
    admitLens: Int32Array.of(0, 0),
    admitFloats: Float32Array.of(0.5, 0.25, 0.125, 0, 1, 0),
    admitInts: Int32Array.of(9, 3, 0, 0),
    admitSeeds: Uint32Array.of(0x76543210, 0xfedcba98, 0, 0),
  });
});

t.test('block tables grow to whole blocks, and all blocks come back', async (t) => {
  const blocks = new BlockManager(5, 4);
  const [a, b] = [makeSequence('generate', 0, [1], []), makeSequence('generate', 1, [1], [])];
  t.ok(blocks.reserve(a, 5));
  t.same([a.blockTable.length, blocks.numFreeBlocks], [2, 3]);
  t.ok(blocks.reserve(a, 8), 'the second block has room');
  t.equal(blocks.numFreeBlocks, 3);
  t.ok(blocks.reserve(b, 12));
  t.equal(blocks.numFreeBlocks, 0);
  t.same(new Set([...a.blockTable, ...b.blockTable]), new Set([0, 1, 2, 3, 4]), 'no block is held twice');
  t.notOk(blocks.reserve(a, 9), 'nothing is left');
  t.equal(a.blockTable.length, 2, 'nothing was taken');
  const [first, second] = a.blockTable;
  blocks.release(a);
  t.same([a.blockTable, blocks.numFreeBlocks], [[], 2]);
  t.ok(blocks.reserve(a, 5));
  t.same(a.blockTable, [first, second], 'what was just in use is used again');
});

t.test('a block that is given back twice is found', async (t) => {
  const blocks = new BlockManager(2, 4);
  t.throws(() => blocks.release(makeSequence('generate', 0, [1], [1])), {
    code: 'ERR_INTERNAL',
    message: 'Expected at most 2 free blocks but counted 3',
  });
});
