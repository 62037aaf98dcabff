/** Quantized weights keep the promise: tokens, log-probabilities and logits are bit-identical however they are computed. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { readModel } from '../../rank/model/index.ts';
import { goodModel } from '../helpers/checkpoint-edits.ts';
import { type Answer, type Call, type Session, SharedJob } from '../helpers/gang.ts';
import { goldenPath, readGolden } from '../helpers/goldens.ts';
import { isFull, part } from '../helpers/scale.ts';

const storyModel = join(fileURLToPath(new URL('../../examples/models/', import.meta.url)), 'story-5m');

/** Pseudo-random token ids. */
function longPrompt(length: number, step: number): number[] {
  return Array.from({ length }, (_, i) => (i * i * step + 17 * i + 5) % 2000);
}

const withLogprobs = { logprobs: 3, promptLogprobs: 1, ignoreEos: true } as const;
const calls: readonly Call[] = [
  { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 40, ...withLogprobs } },
  {
    type: 'generate',
    prompt: { promptTokenIds: longPrompt(97, 7) },
    params: { temperature: 1, seed: 12, topK: 20, maxTokens: 40, ...withLogprobs },
  },
  {
    type: 'generate',
    prompt: { promptTokenIds: [7] },
    params: { temperature: 1.3, seed: 13, topP: 0.9, maxTokens: 60, ...withLogprobs },
  },
  { type: 'logits', promptTokenIds: longPrompt(140, 9) },
];
const together = [calls];
const fixed = { numSpeculativeTokens: 3, adaptiveK: false } as const;

/** Ways to run the same calls, by what they vary. */
const ways: Record<string, { options: LLMOptions; rounds: Session['rounds'] }> = {
  'one after the other': { options: {}, rounds: calls.map((call) => [call]) },
  'in one batch': { options: {}, rounds: together },
  'in chunks of at most 21 tokens': { options: { maxNumSeqs: 4, maxNumBatchedTokens: 21 }, rounds: together },
  'on three threads': { options: { numThreads: 3 }, rounds: together },
  'with n-gram drafts': { options: { speculativeConfig: { ...fixed, method: 'ngram' } }, rounds: together },
  'with a draft of its own weights as stored': {
    options: { speculativeConfig: { ...fixed, model: storyModel, quantization: 'none' } },
    rounds: together,
  },
  'with a draft quantized as it is': { options: { speculativeConfig: { ...fixed, model: storyModel } }, rounds: together },
};

const kinds = [
  { quantization: 'int8', dtype: 'float32' },
  { quantization: 'int4', dtype: 'bfloat16' },
  { quantization: 'int8', dtype: 'bfloat16' },
  { quantization: 'int4', dtype: 'float32' },
] as const;

const jobs = [1, 2, 3, 4].map((worldSize) => ({ worldSize, job: new SharedJob(worldSize) }));
const onOneRank = jobs[0]?.job as SharedJob;

for (const types of isFull ? kinds : kinds.slice(0, 2)) {
  const what = `${types.quantization} weights, ${types.dtype} activations`;
  let reference: readonly Answer[] | undefined;
  for (const { worldSize, job } of jobs) {
    const names =
      worldSize === 1 ? Object.keys(ways) : ['in one batch', ...part(['in chunks of at most 21 tokens', 'with n-gram drafts'], 2)];
    const sessions = names.map((name): Session => {
      const { options, rounds } = ways[name] as (typeof ways)[string];
      return { model: storyModel, options: { ...types, ...(worldSize > 1 && { numThreads: 1 }), ...options }, rounds };
    });
    const run = job.add(sessions);
    test(`${what}, on ${worldSize} ranks`, async (t) => {
      const { sessions: results, speculation } = await run();
      reference ??= results[0] as readonly Answer[];
      names.forEach((name, i) => {
        t.same(results[i], reference, name);
        const { numDraftTokens = 0, numAcceptedTokens = 0 } = speculation[i] ?? {};
        if (name.includes('quantized as'))
          t.ok(numDraftTokens > 60 && numAcceptedTokens === numDraftTokens, `all of ${numDraftTokens} drafts`);
        if (name.includes('as stored')) t.ok(numAcceptedTokens > 0, `${numAcceptedTokens} of ${numDraftTokens} drafts are accepted`);
      });
    });
  }

  const run = onOneRank.add([{ model: storyModel, options: types, rounds: [calls, calls] }]);
  test(`${what}, prefixes from the cache`, async (t) => {
    const [answers = []] = (await run()).sessions;
    t.same(answers.slice(calls.length), answers.slice(0, calls.length));
  });

  // 4 KV heads × 32 dimensions × K and V × 6 layers × 32 tokens.
  const kvCacheMemoryBytes = 12 * 4 * 32 * 2 * 6 * 32 * (types.dtype === 'float32' ? 4 : 2);
  const growing = Array.from({ length: 6 }, (_, i): Call => {
    return { type: 'generate', prompt: { promptTokenIds: longPrompt(9 + i, i + 1) }, params: { seed: i, ignoreEos: true, maxTokens: 150 } };
  });
  const runGrowing = onOneRank.add([
    { model: storyModel, options: types, rounds: growing.map((call) => [call]) },
    { model: storyModel, options: { ...types, kvCacheMemoryBytes }, rounds: [growing] },
  ]);
  test(`${what}, preempted for want of KV blocks`, async (t) => {
    const { sessions, numPreemptions } = await runGrowing();
    t.ok((numPreemptions[1] ?? 0) > 0, 'sequences were preempted');
    t.same(sessions[1], sessions[0]);
  });
}

/** Nine heads, heads of 16 and ragged chunks, biases, an odd vocabulary; fp32, fp16 and FP8 checkpoints. */
const shapes = part(
  [
    'smollm-nine-heads-bf16',
    'llama-bias-fp16',
    'qwen2-fp8-block-mixed',
    'odd-vocab-fp32',
    'qwen3-head-dim-bf16',
    'llama-fp8-channel-mixed',
    'qwen3-untied-fp32',
    'mistral-sliding-bf16',
  ],
  2,
).map((name) => ({ ...readGolden(name), numHeads: readModel(goldenPath(name)).config.numAttentionHeads }));
const small = { name: 'story-180k', path: goodModel, prompts: [longPrompt(40, 3).map((id) => id % 200)], numHeads: 2 };
const models = [small, ...shapes];
const roundsOf = ({ prompts }: Pick<(typeof models)[number], 'prompts'>): Session['rounds'] => [
  prompts.flatMap((promptTokenIds): Call[] => [
    { type: 'logits', promptTokenIds },
    { type: 'generate', prompt: { promptTokenIds }, params: { temperature: 0, maxTokens: 12, ...withLogprobs } },
  ]),
];

/** Checkpoints of integers, which stay as they are. */
const integerModels = [
  'qwen3-int4-compressed',
  'llama-int4-compressed-zero',
  'llama-int8-compressed',
  'qwen2-awq',
  'llama-gptq-act-order',
  'mistral-gptq-v2',
  'llama-gptq-int8-act-order',
  'qwen2-int8-compressed-zero',
].map((name) => ({ ...readGolden(name), numHeads: 8 }));
const draftOf = (model: string) => ({ ...fixed, model });
/** In chunks, on other threads, with drafts of the text and of the model itself. */
const integerWays: readonly ((model: string) => LLMOptions)[] = [
  () => ({ numThreads: 1 }),
  () => ({ numThreads: 3, maxNumSeqs: 2, maxNumBatchedTokens: 7 }),
  (model) => ({ numThreads: 1, speculativeConfig: draftOf(model) }),
];

for (const dtype of ['float32', 'bfloat16'] as const) {
  const expected = new Map<string, readonly Answer[]>();
  for (const { worldSize, job } of jobs) {
    const ways = worldSize === 1 ? integerWays : integerWays.slice(0, 2);
    const runs = integerModels.flatMap((each) => ways.map((way, i) => ({ each, what: `${each.name}, way ${i}`, options: way(each.path) })));
    const sessions = runs.map(
      ({ each, options }): Session => ({ model: each.path, options: { dtype, ...options }, rounds: roundsOf(each) }),
    );
    const run = job.add(sessions);
    test(`integers of checkpoints, ${dtype} activations, on ${worldSize} ranks`, async (t) => {
      const results = (await run()).sessions;
      runs.forEach(({ each, what }, i) => {
        if (!expected.has(each.name)) expected.set(each.name, results[i] as readonly Answer[]);
        t.same(results[i], expected.get(each.name), what);
      });
    });
  }
}

for (const quantization of ['int8', 'int4'] as const) {
  const expected = new Map<string, readonly Answer[]>();
  for (const { worldSize, job } of jobs) {
    const fitting = models.filter(({ numHeads }) => numHeads >= worldSize);
    const sessions = fitting.map((each): Session => {
      const dtype = each.path.endsWith('bf16') ? 'bfloat16' : 'float32';
      return { model: each.path, options: { quantization, dtype, numThreads: 1 }, rounds: roundsOf(each) };
    });
    const run = job.add(sessions);
    test(`${quantization}: small models of awkward shapes on ${worldSize} ranks`, async (t) => {
      const results = (await run()).sessions;
      fitting.forEach(({ name }, i) => {
        if (!expected.has(name)) expected.set(name, results[i] as readonly Answer[]);
        t.same(results[i], expected.get(name), name);
      });
    });
  }
}
