/** The engine on the emulated device in deterministic mode: goldens, the same bits however a request is run, and speculation. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { type Answer, type Call, logitsOf, runJob, type Session } from '../helpers/gang.ts';
import { goldenNames, readGolden, relativeError, smallestCosine } from '../helpers/goldens.ts';
import { isAll, part } from '../helpers/scale.ts';
import { emulatedBackend, standIn } from './emulated.ts';

const env = await emulatedBackend();
const device = { device: 'cuda', deterministic: true, maxNumSeqs: 8, maxNumBatchedTokens: 128 } as const;
const story = join(fileURLToPath(new URL('../../examples/models/', import.meta.url)), 'story-180k');

/** One of each kind: tied and untied, head norms, biases, a window, heads that no number of ranks divides, other stored types. */
const fewGoldens = [
  'qwen3-head-dim-bf16',
  'smollm-nine-heads-bf16',
  'mistral-sliding-bf16',
  'llama-bias-fp16',
  'mistral3-ministral3-bf16',
  'qwen2-fp8-block-mixed',
];
const goldens = goldenNames.filter((name) => isAll || part(fewGoldens, 3).includes(name)).map(readGolden);

let onOneRank: readonly (readonly Answer[])[] = [];
for (const worldSize of isAll ? [1, 2, 3] : [1, 3]) {
  t.test(`goldens on ${worldSize} ranks`, async (t) => {
    const sessions = goldens.flatMap(({ path, prompts, greedy }): Session[] => {
      const used = isAll ? prompts : prompts.slice(0, 2);
      const logits = used.map((promptTokenIds): Call => ({ type: 'logits', promptTokenIds }));
      const texts = used.map((promptTokenIds, i): Call => {
        const maxTokens = Math.min(greedy[i]?.length ?? 0, isAll ? 64 : 8);
        return { type: 'generate', prompt: { promptTokenIds }, params: { temperature: 0, ignoreEos: true, maxTokens } };
      });
      const options = { ...device, kvCacheMemoryBytes: 2 ** 23 };
      return [
        { model: path, options: { dtype: 'float32', ...options }, rounds: [logits, texts] },
        { model: path, options: { dtype: 'bfloat16', ...options }, rounds: [logits] },
      ];
    });
    const answers = (await runJob(worldSize, sessions, env)).sessions;
    goldens.forEach((golden, g) => {
      const [float32 = [], bfloat16 = []] = [answers[g * 2], answers[g * 2 + 1]];
      bfloat16.forEach((answer, i) => {
        const expected = golden.logits[i] as Float32Array;
        t.ok(relativeError(logitsOf(float32[i]), expected) <= 2e-4, `${golden.name}: float32 logits of prompt ${i}`);
        const width = expected.length / (golden.prompts[i]?.length ?? 1);
        t.ok(smallestCosine(logitsOf(answer), expected, width) >= 0.999, `${golden.name}: bfloat16 logits of prompt ${i}`);
        const { tokenIds = [] } = float32[bfloat16.length + i] ?? {};
        t.same(tokenIds, golden.greedy[i]?.slice(0, tokenIds.length), `${golden.name}: greedy text of prompt ${i}`);
      });
    });
    if (worldSize === 1) onOneRank = answers;
    t.same(answers, onOneRank, 'the same bits as on one rank');
  });
}

t.test('embeddings are refused, by name', async (t) => {
  const call: Call = { type: 'embed', promptTokenIds: [11, 12], options: {} };
  const session: Session = { model: story, options: { dtype: 'float32', ...device, kvCacheMemoryBytes: 2 ** 23 }, rounds: [[call]] };
  await t.rejects(runJob(1, [session], env), { message: /Expected device 'cpu' for embed\(\)/ });
});

t.test('kernels of a pass overlap the one before, but none the work of another pass or an exchange', async (t) => {
  const call: Call = { type: 'generate', prompt: 'The little dog', params: { temperature: 0, maxTokens: 4, ignoreEos: true } };
  // Of the model's one layer, 13 kernels, and 3 that sample and commit; on two ranks 16 and 4, and four exchanges. Beside
  // them one prepares the pass, and on two ranks one joins embeddings.
  for (const [worldSize, numKernels, numExchanges, numOthers] of [
    [1, 13 + 3, 0, 1],
    [2, 16 + 4, 4, 2],
  ] as const) {
    const counts = join(t.testdir({}), 'launches');
    await runJob(worldSize, [{ model: story, options: device, rounds: [[call]] }], { ...env, SIMT_LAUNCHES: counts });
    const lines = readFileSync(counts, 'utf8').trim().split('\n');
    t.same(
      lines.map((line) => line.split(' ', 2).map((count) => Number(count) / 4)),
      Array(worldSize).fill([numKernels + numOthers, numKernels - 1 - numExchanges]),
      `a pass on ${worldSize} ranks`,
    );
  }
});

/** Several kinds of sampling, and prompts of several lengths. */
const requests = ((): Call[] => {
  const long = (length: number) => ({ promptTokenIds: Array.from({ length }, (_, i) => (i * i * 3 + 17 * i + 5) % 1000) });
  const maxTokens = isAll ? 40 : 14;
  return [
    { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens } },
    { type: 'generate', prompt: 'The little dog', params: { temperature: 0.8, seed: 11, maxTokens, ignoreEos: true } },
    { type: 'generate', prompt: long(70), params: { seed: 12, topK: 20, topP: 0.9, minP: 0.01, maxTokens, ignoreEos: true } },
    {
      type: 'generate',
      prompt: 'One day a cat',
      params: { seed: 14, repetitionPenalty: 1.3, frequencyPenalty: 0.4, logitBias: { 7: 2 }, maxTokens, ignoreEos: true },
    },
    {
      type: 'generate',
      prompt: long(9),
      params: { seed: 18, allowedTokenIds: Array.from({ length: 300 }, (_, i) => i * 3), topK: 40, ignoreEos: true, maxTokens },
    },
    { type: 'logits', promptTokenIds: long(60).promptTokenIds },
  ];
})();
const drafts = (more: object): LLMOptions => ({ speculativeConfig: { numSpeculativeTokens: 3, adaptiveK: false, ...more } });

/** Ways to run the same requests. What each is for is its name. */
const ways: Record<string, { options?: LLMOptions; rounds?: readonly (readonly Call[])[]; worldSize?: number }> = {
  'one after the other': { rounds: requests.map((call) => [call]) },
  'in one batch': {},
  'in chunks of at most 16 tokens': { options: { maxNumSeqs: 5, maxNumBatchedTokens: 16 } },
  'in blocks of 96 tokens': { options: { blockSize: 96 } },
  'without two steps in flight': { options: { asyncScheduling: false } },
  'with drafts of n-grams': { options: drafts({ method: 'ngram', promptLookupMin: 1 }) },
  'with drafts of a model': { options: drafts({ model: story }) },
  'on two ranks': { worldSize: 2 },
  'on two ranks, with drafts of a model that they share': { options: drafts({ model: story, draftTensorParallelSize: 2 }), worldSize: 2 },
};

/** Single precision has no tensor cores, and takes the emulation longer. */
const waysOfFloat32 = ['one after the other', 'in one batch', 'with drafts of a model', 'on two ranks'];

for (const dtype of ['float32', 'bfloat16'] as const) {
  t.test(`${dtype}: tokens and logits are the same bits`, async (t) => {
    let reference: readonly Answer[] | undefined;
    for (const worldSize of [1, 2]) {
      const isWanted = (name: string) => isAll || dtype === 'bfloat16' || waysOfFloat32.includes(name);
      const names = Object.keys(ways).filter((name) => (ways[name]?.worldSize ?? 1) === worldSize && isWanted(name));
      const sessions = names.map((name): Session => {
        const { options = {}, rounds = [requests] } = ways[name] ?? {};
        return { model: story, options: { dtype, ...device, ...options }, rounds };
      });
      const { sessions: answers, speculation } = await runJob(worldSize, sessions, env);
      reference ??= answers[0] as readonly Answer[];
      names.forEach((name, i) => {
        t.same(answers[i], reference, name);
        if (name.includes('drafts of a model')) t.ok((speculation[i]?.numAcceptedTokens ?? 0) > 5, `${name}: drafts were accepted`);
      });
    }
  });
}

t.test('float32 on the device gives the tokens of the CPU', async (t) => {
  const session = { model: story, rounds: [requests.slice(0, 5)] };
  const [onDevice, onCpu] = (
    await runJob(
      1,
      [
        { ...session, options: { dtype: 'float32', ...device } },
        { ...session, options: { dtype: 'float32', device: 'cpu', numThreads: 1 } },
      ],
      env,
    )
  ).sessions;
  t.same(onDevice, onCpu);
});

t.test('cuBLASLt takes products of many rows, outside of deterministic mode', async (t) => {
  const log = join(t.testdir(), 'products');
  const standIns = { ...env, NDS_CUBLAS_PATH: await standIn('cublaslt'), NDS_STAND_IN_LOG: log };
  const calls = requests.filter(({ type }) => type === 'logits');
  const session = (deterministic: boolean): Session => ({
    model: story,
    options: { dtype: 'bfloat16', ...device, deterministic },
    rounds: [calls, calls, calls],
  });
  const [exact = []] = (await runJob(1, [session(true)], standIns)).sessions;
  t.notOk(existsSync(log), 'never in deterministic mode');
  const [fast = []] = (await runJob(1, [session(false)], standIns)).sessions;
  // Of each of two layers: qkv, o, gate and up, down; timed and run, first one by one, then from a graph.
  t.ok(readFileSync(log, 'utf8').split('\n').length > 16, 'products of the stand-in');
  const width = logitsOf(exact[0]).length / 60;
  for (const [i, answer] of fast.entries()) t.ok(smallestCosine(logitsOf(answer), logitsOf(exact[i]), width) >= 0.999, `pass ${i}`);
});

t.test('the rules that judge drafts accept all of a model that drafts for itself', async (t) => {
  const rules = ['standard', 'block'] as const;
  const session = (rejectionSampleMethod: string): Session => ({
    model: story,
    options: { dtype: 'float32', ...device, ...drafts({ model: story, rejectionSampleMethod }) },
    rounds: [requests.slice(0, 3)],
  });
  const { speculation } = await runJob(1, rules.map(session), env);
  rules.forEach((rule, i) => {
    const { numDraftTokens = 0, numAcceptedTokens = 0 } = speculation[i] ?? {};
    t.ok(numDraftTokens > 20 && numAcceptedTokens === numDraftTokens, `${rule}: ${numAcceptedTokens} of ${numDraftTokens}`);
  });
});
