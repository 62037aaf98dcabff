/**
 * Copy-on-write: attention to a copied KV block equals that to the original, and a write to either leaves the other
 * unchanged.
 */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { noLists } from '../../protocol/admit-lists.ts';
import type { KvCacheDtype } from '../../protocol/messages.ts';
import { LogitRowKind, type StepPlan } from '../../protocol/step-plan.ts';
import { alone } from '../../rank/gang/place.ts';
import { buildProgram, type Model, readModel } from '../../rank/model/index.ts';
import { native, type Runner } from '../../rank/native.ts';
import { readWeights, writeWeights } from '../helpers/checkpoint-edits.ts';
import { goldenPath } from '../helpers/goldens.ts';
import { goodPlan, submit } from '../helpers/next-token.ts';

const model = readModel(goldenPath('llama-gqa-tied-bf16'));
const { vocabSize } = model.config;
const prompt = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) % vocabSize);

interface Setup {
  readonly dtype: 'float32' | 'bfloat16';
  readonly kvCacheDtype: KvCacheDtype;
  readonly blockSize: number;
  readonly numThreads: number;
}

async function openRunner(t: Test, { numThreads, ...types }: Setup, from = model): Promise<Runner> {
  const limits = { maxModelLen: 256, maxNumSeqs: 2, maxNumBatchedTokens: 64, maxNumLogitRows: 4, sampleVocabSize: vocabSize };
  // One of 64 ranks on the host, so that threads are not pinned.
  const runner = native().createRunner({ ...alone, localWorldSize: 64, numThreads });
  t.teardown(() => runner.close());
  await runner.load(buildProgram(from, { rank: 0, worldSize: 1, ...types, quantization: 'none', numBlocks: 6, ...limits }));
  return runner;
}

/** New tokens of one slot: their first position, their blocks, and whether the slot is admitted. */
interface Share {
  readonly slot: number;
  readonly start: number;
  readonly tokenIds: readonly number[];
  readonly blocks: readonly number[];
  readonly admits: boolean;
}

/** A step that returns the logits of the last token of each share. */
async function step(runner: Runner, index: number, shares: readonly Share[], blockCopies: readonly number[] = []) {
  const ends = shares.map((_, i) => shares.slice(0, i + 1).reduce((sum, { tokenIds }) => sum + tokenIds.length, 0));
  const admitted = shares.filter(({ admits }) => admits);
  const plan: StepPlan = {
    step: index,
    slots: Int32Array.from(shares, ({ slot }) => slot),
    tokenIds: Int32Array.from(shares.flatMap(({ tokenIds }) => tokenIds)),
    cuQueryLens: Int32Array.of(0, ...ends),
    contextLens: Int32Array.from(shares, ({ start, tokenIds }) => start + tokenIds.length),
    blockCopies: Int32Array.from(blockCopies),
    blockTables: Int32Array.from(shares.flatMap(({ blocks }) => blocks)),
    cuBlocks: Int32Array.from([0, ...shares.map((_, i) => shares.slice(0, i + 1).reduce((sum, { blocks }) => sum + blocks.length, 0))]),
    numDrafts: new Int32Array(0),
    draft: null,
    logitRows: Int32Array.from(ends, (end) => end - 1),
    logitRowKinds: Int32Array.from(shares, () => LogitRowKind.return),
    logitRowTargets: new Int32Array(0),
    hiddenRows: new Int32Array(0),
    admitSlots: Int32Array.from(admitted, ({ slot }) => slot),
    admitLens: Int32Array.from(admitted, ({ start }) => start),
    admitFloats: Float32Array.from(admitted.flatMap(() => [...goodPlan.admitFloats])),
    admitInts: Int32Array.from(admitted.flatMap(() => [...goodPlan.admitInts])),
    admitSeeds: Uint32Array.from(admitted.flatMap(() => [...goodPlan.admitSeeds])),
    admitLists: noLists,
  };
  const { logits } = await submit(runner, plan);
  return shares.map((_, i) => Buffer.from(logits.slice(i * vocabSize, (i + 1) * vocabSize).buffer).toString('hex'));
}

/** Logits of the last token of a sequence that runs alone. */
async function aloneLogits(t: Test, setup: Setup, tokenIds: readonly number[], from = model): Promise<string | undefined> {
  const runner = await openRunner(t, setup, from);
  const [logits] = await step(runner, 0, [{ slot: 0, start: 0, tokenIds, blocks: [0, 1], admits: true }]);
  return logits;
}

const setups: readonly Setup[] = [
  { dtype: 'float32', kvCacheDtype: 'float32', blockSize: 32, numThreads: 1 },
  { dtype: 'bfloat16', kvCacheDtype: 'bfloat16', blockSize: 32, numThreads: 3 },
  { dtype: 'float32', kvCacheDtype: 'float32', blockSize: 64, numThreads: 2 },
  { dtype: 'float32', kvCacheDtype: 'bfloat16', blockSize: 32, numThreads: 2 },
  // Scales are copied with the integers that they belong to.
  { dtype: 'bfloat16', kvCacheDtype: 'int8', blockSize: 32, numThreads: 2 },
];

for (const setup of setups) {
  test(`${setup.dtype}, ${setup.kvCacheDtype} cache, blocks of ${setup.blockSize}, ${setup.numThreads} threads`, async (t) => {
    const [one, two] = [5, 9];
    const [withOne, withTwo, withBoth] = await Promise.all([
      aloneLogits(t, setup, [...prompt, one]),
      aloneLogits(t, setup, [...prompt, two]),
      aloneLogits(t, setup, [...prompt, two, one]),
    ]);
    t.not(withOne, withTwo);
    const runner = await openRunner(t, setup);
    // In blocks of 64 tokens the prompt occupies only one.
    const blocks = setup.blockSize === 32 ? [4, 1] : [1];
    const shared = blocks.slice(0, -1);
    await step(runner, 0, [{ slot: 0, start: 0, tokenIds: prompt, blocks, admits: true }]);
    // The second copy reads what the first wrote, and both sequences write after the prompt in the same step.
    const first: Share = { slot: 0, start: 40, tokenIds: [one], blocks, admits: false };
    const second: Share = { slot: 1, start: 40, tokenIds: [two], blocks: [...shared, 3], admits: true };
    t.same(await step(runner, 1, [first, second], [1, 2, 2, 3]), [withOne, withTwo]);
    // Block 2 still ends with the prompt: copying it over block 1 undoes what was written there.
    const third: Share = { slot: 0, start: 40, tokenIds: [two], blocks, admits: true };
    const fourth: Share = { ...second, start: 41, tokenIds: [one], admits: false };
    t.same(await step(runner, 2, [third, fourth], [2, 1]), [withTwo, withBoth]);
  });
}

const nanToken = 7;

/** The model with one row of its embedding set to NaN. */
function withoutNumbers(t: Test, token: number): Model {
  const folder = join(t.testdir(), 'broken');
  cpSync(model.path, folder, { recursive: true });
  const { header, data } = readWeights(folder);
  const [begin = 0] = header['model.embed_tokens.weight']?.data_offsets ?? [];
  for (let i = 0; i < model.config.hiddenSize; i++) data.writeUInt16LE(0x7fc0, begin + (token * model.config.hiddenSize + i) * 2);
  writeWeights(folder, { header, data });
  return readModel(folder);
}

for (const setup of setups) {
  test(`what a text left that overflowed spoils no other, ${setup.kvCacheDtype}, blocks of ${setup.blockSize}`, async (t) => {
    const broken = withoutNumbers(t, nanToken);
    const text = prompt.filter((token) => token !== nanToken);
    const overflowing = new Array<number>(60).fill(nanToken);
    const expected = await aloneLogits(t, setup, text, broken);
    const runner = await openRunner(t, setup, broken);
    const blocks = [4, 1];
    const [spoiled] = await step(runner, 0, [{ slot: 0, start: 0, tokenIds: overflowing, blocks, admits: true }]);
    t.ok(/^(?:0000c0[7f]f)+$/.test(spoiled ?? ''), 'no logit is a number');
    // The same blocks, partly filled: in one step, and token by token across the border of a run.
    const [whole] = await step(runner, 1, [{ slot: 0, start: 0, tokenIds: text, blocks, admits: true }]);
    t.equal(whole, expected);
    await step(runner, 2, [{ slot: 0, start: 0, tokenIds: overflowing, blocks, admits: true }]);
    let last: string | undefined;
    for (const [i, token] of text.entries()) {
      [last] = await step(runner, 3 + i, [{ slot: 0, start: i, tokenIds: [token], blocks, admits: i === 0 }]);
    }
    t.equal(last, expected);
  });
}
