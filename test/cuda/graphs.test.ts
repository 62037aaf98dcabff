/** The draft model's proposals of a step as one CUDA graph: replayed while contexts grow, with the bits of launches one by one. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { type Answer, type Call, runJob } from '../helpers/gang.ts';
import { fullOnly, part } from '../helpers/scale.ts';
import { emulatedBackend, standIn } from './emulated.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const backend = await emulatedBackend();
const onDevices = { ...backend, NDS_EMULATED_DEVICES: '2', NDS_NCCL_PATH: await standIn('nccl') };
const device = { device: 'cuda', deterministic: true, dtype: 'float32', maxNumSeqs: 4, kvCacheMemoryBytes: 2 ** 23 } as const;

/** Its passes need no padding. */
const text = (maxTokens: number, more: object = { temperature: 0 }): Call => ({
  type: 'generate',
  prompt: { promptTokenIds: [1, 403, 407] },
  params: { maxTokens, ignoreEos: true, ...more },
});
/** The model drafts for itself, so that all drafts are accepted and each step takes in the same number of tokens. */
const drafts = (numSpeculativeTokens: number, more: object = {}): LLMOptions => ({
  speculativeConfig: { model: story, numSpeculativeTokens, adaptiveK: false, ...more },
});

/** Graphs made and graphs launched, the same on each rank, the bytes that rank 0 exchanged, and the answers. */
async function count(t: Test, worldSize: number, options: LLMOptions, rounds: readonly (readonly Call[])[], env = backend) {
  const file = join(t.testdir({}), 'launches');
  const { sessions, exchangedBytes } = await runJob(worldSize, [{ model: story, options: { ...device, ...options }, rounds }], {
    ...env,
    SIMT_LAUNCHES: file,
  });
  const ranks = readFileSync(file, 'utf8').trim().split('\n');
  const counts = ranks.map((line) => line.split(' ').slice(2, 4).map(Number));
  t.same(counts, Array(worldSize).fill(counts[0]));
  const [numGraphs = 0, numGraphLaunches = 0] = counts[0] ?? [];
  return { numGraphs, numGraphLaunches, exchangedBytes: exchangedBytes[0], answers: sessions[0] as readonly Answer[] };
}

let expected: readonly Answer[] | undefined;
const cases = [
  ['one rank, two drafts', 1, 2, {}, backend],
  ['one rank, five drafts', 1, 5, {}, backend],
  ['two ranks that share the draft model, over NCCL', 2, 5, { draftTensorParallelSize: 2 }, onDevices],
  ['two ranks with a draft model each, over NCCL', 2, 5, { draftTensorParallelSize: 1 }, onDevices],
] as const;
for (const [name, worldSize, numDrafts, more, env] of part(cases, 4)) {
  t.test(`three graphs a step: ${name}`, async (t) => {
    const [few, many] = [
      await count(t, worldSize, drafts(numDrafts, more), [[text(31)]], env),
      await count(t, worldSize, drafts(numDrafts, more), [[text(61)]], env),
    ];
    expected ??= many.answers;
    t.same(many.answers, expected, 'the same tokens');
    t.equal(many.numGraphs, few.numGraphs, 'longer contexts need no more graphs');
    const numSteps = 30 / (numDrafts + 1);
    const traced = await count(t, worldSize, { ...drafts(numDrafts, more), trace: join(t.testdir({}), 'trace.json') }, [[text(61)]], env);
    t.equal(traced.numGraphs, 0, 'none while operators are traced');
    t.equal(many.exchangedBytes, traced.exchangedBytes, 'replays count in the traffic');
    t.equal((many.numGraphLaunches - few.numGraphLaunches) / numSteps, 3, 'catching up, proposals, verification');
  });
}

t.test('ranks that exchange through the host use no graphs', async (t) => {
  const { numGraphs, numGraphLaunches } = await count(t, 2, drafts(3, { draftTensorParallelSize: 2 }), [[text(12)]]);
  t.same([numGraphs, numGraphLaunches], [0, 0]);
});

t.test('graphs outlive neither the distributions of drafts nor the numbers of drafts that they were made for', fullOnly, async (t) => {
  const options = drafts(3, { rejectionSampleMethod: 'standard', draftSampleMethod: 'probabilistic' });
  // Texts of several lengths: towards its end each has fewer drafts left than the others.
  const calls = [22, 18, 27, 15].map((maxTokens, i) => text(maxTokens, { temperature: 0.9, seed: i }));
  const growing = [calls.slice(0, 1), calls.slice(0, 2), calls, calls];
  const { answers } = await count(t, 1, options, growing);
  const alone = await count(
    t,
    1,
    options,
    calls.map((call) => [call]),
  );
  t.same(answers, [...alone.answers.slice(0, 1), ...alone.answers.slice(0, 2), ...alone.answers, ...alone.answers]);
});
