/** KV caches narrower than activations, or of int8: bit-identical for any batch and number of ranks, and close to fp32. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { type Answer, type Call, logitsOf, type Session, SharedJob } from '../helpers/gang.ts';
import { goldenNames, readGolden, smallestCosine } from '../helpers/goldens.ts';
import { part } from '../helpers/scale.ts';

const storyModel = join(fileURLToPath(new URL('../../examples/models/', import.meta.url)), 'story-5m');

/** Pseudo-random token ids. */
function longPrompt(length: number, step: number): number[] {
  return Array.from({ length }, (_, i) => (i * i * step + 17 * i + 5) % 2000);
}

const calls: readonly Call[] = [
  { type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 40 } },
  { type: 'generate', prompt: { promptTokenIds: longPrompt(97, 7) }, params: { temperature: 1, seed: 12, topK: 20, maxTokens: 40 } },
  { type: 'generate', prompt: { promptTokenIds: [7] }, params: { temperature: 1.3, seed: 13, topP: 0.9, ignoreEos: true, maxTokens: 70 } },
  { type: 'logits', promptTokenIds: longPrompt(140, 9) },
];
const alone = calls.map((call) => [call]);
const together = [calls];

const ways: Record<string, { options: LLMOptions; rounds: Session['rounds'] }> = {
  'one after the other': { options: {}, rounds: alone },
  'in one batch': { options: {}, rounds: together },
  'in chunks of at most 21 tokens': { options: { maxNumSeqs: 4, maxNumBatchedTokens: 21 }, rounds: together },
  'in blocks of 96 tokens': { options: { blockSize: 96 }, rounds: together },
  'on three threads': { options: { numThreads: 3 }, rounds: together },
};

const jobs = part([1, 2, 4, 3], 2).map((worldSize) => ({ worldSize, job: new SharedJob(worldSize) }));
const onOneRank = jobs[0]?.job as SharedJob;

const caches = [
  { dtype: 'float32', kvCacheDtype: 'bfloat16', headBytes: 64 },
  { dtype: 'float32', kvCacheDtype: 'int8', headBytes: 36 },
  { dtype: 'bfloat16', kvCacheDtype: 'int8', headBytes: 36 },
] as const;

for (const { dtype, kvCacheDtype, headBytes } of caches) {
  let reference: readonly Answer[] | undefined;
  for (const { worldSize, job } of jobs) {
    const names = worldSize === 1 ? Object.keys(ways) : ['in one batch', 'in chunks of at most 21 tokens'];
    const sessions = names.map((name): Session => {
      const { options, rounds } = ways[name] as (typeof ways)[string];
      return {
        model: storyModel,
        options: { dtype, kvCacheDtype, ...(worldSize > 1 && { numThreads: 1 }), ...options },
        rounds,
      };
    });
    const run = job.add(sessions);
    test(`${dtype} activations, ${kvCacheDtype} cache on ${worldSize} ranks`, async (t) => {
      const results = (await run()).sessions;
      reference ??= results[0] as readonly Answer[];
      names.forEach((name, i) => t.same(results[i], reference, name));
    });
  }

  // 4 KV heads of 32 elements (int8: and a scale) × K and V × 6 layers × 32 tokens.
  const kvCacheMemoryBytes = 12 * 4 * headBytes * 2 * 6 * 32;
  const growing = Array.from({ length: 6 }, (_, i): Call => {
    const prompt = { promptTokenIds: longPrompt(9 + i, i + 1) };
    return { type: 'generate', prompt, params: { seed: i, ignoreEos: true, maxTokens: 150 } };
  });
  const options: LLMOptions = { dtype, kvCacheDtype };
  const run = onOneRank.add([
    { model: storyModel, options, rounds: growing.map((call) => [call]) },
    { model: storyModel, options: { ...options, kvCacheMemoryBytes }, rounds: [growing] },
  ]);
  test(`${dtype} activations, ${kvCacheDtype} cache, preempted for want of KV blocks`, async (t) => {
    const { sessions, numPreemptions } = await run();
    t.equal(numPreemptions[0], 0);
    t.ok((numPreemptions[1] ?? 0) > 0, 'sequences were preempted');
    t.same(sessions[1], sessions[0]);
  });
}

/** Largest |a - b|. */
function largestError(a: Float32Array, b: Float32Array): number {
  return b.reduce((most, expected, i) => Math.max(most, Math.abs((a[i] as number) - expected)), 0);
}

/**
 * Min cosine between rows of logits and those of float32 activations with an unquantized cache. int8 has 7 bits and a
 * sign relative to a row's largest element, bfloat16 8 bits of every activation: each may lose 0.001, and independent
 * errors add. Only K and V in bfloat16 may lose half of that.
 */
const bounds = [
  { dtype: 'float32', kvCacheDtype: 'bfloat16', bound: 0.9995 },
  { dtype: 'float32', kvCacheDtype: 'int8', bound: 0.999 },
  { dtype: 'bfloat16', kvCacheDtype: 'auto', bound: 0.999 },
  { dtype: 'bfloat16', kvCacheDtype: 'int8', bound: 0.998 },
] as const;

const models = [
  { name: 'story-5m', path: storyModel, prompts: [longPrompt(140, 9), longPrompt(300, 11)], vocabSize: 2048 },
  ...part(goldenNames, 3)
    .map(readGolden)
    .map(({ name, path, prompts, logits }) => {
      return { name, path, prompts, vocabSize: (logits[0]?.length ?? 0) / (prompts[0]?.length ?? 1) };
    }),
];
const kinds = [{ dtype: 'float32', kvCacheDtype: 'auto' } as const, ...bounds];
const runOfLogits = onOneRank.add(
  models.flatMap(({ path, prompts }) => {
    const rounds = [prompts.map((promptTokenIds): Call => ({ type: 'logits', promptTokenIds }))];
    return kinds.map(({ dtype, kvCacheDtype }): Session => ({ model: path, options: { dtype, kvCacheDtype, numThreads: 1 }, rounds }));
  }),
);

test('logits are close to those of an unquantized cache', async (t) => {
  const results = (await runOfLogits()).sessions;
  for (const [m, { name, vocabSize }] of models.entries()) {
    const answers = results.slice(m * kinds.length, (m + 1) * kinds.length);
    const logits = answers.map((each) => Float32Array.from(each.flatMap((answer) => [...logitsOf(answer)])));
    const exact = logits[0] as Float32Array;
    bounds.forEach(({ dtype, kvCacheDtype, bound }, i) => {
      const rows = logits[i + 1] as Float32Array;
      const [error, cosine] = [largestError(rows, exact), smallestCosine(rows, exact, vocabSize)];
      const what = `${name}, ${dtype} activations, kvCacheDtype ${kvCacheDtype}`;
      t.comment(`${what}: largest error of a logit ${error.toPrecision(3)}, smallest cosine ${cosine.toFixed(6)}`);
      t.ok(error > 0, `${what}: something was rounded`);
      t.ok(cosine >= bound, `${what}: cosine ${cosine} is at least ${bound}`);
    });
  }
});
