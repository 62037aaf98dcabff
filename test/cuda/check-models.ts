/** Goldens and shipped models on a device with n ranks: `check-models.ts WORLD_SIZE`. The last line is `N passed, N failed`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Answer, type Call, logitsOf, runJob, type Session } from '../helpers/gang.ts';
import { goldenNames, readGolden, relativeError, smallestCosine } from '../helpers/goldens.ts';

const worldSize = Number(process.argv[2] ?? 1);
const device = { device: 'cuda', deterministic: true } as const;
const counts = { passed: 0, failed: 0 };
function check(isRight: boolean, what: string): void {
  counts[isRight ? 'passed' : 'failed']++;
  if (!isRight) console.log(`FAIL ${what}`);
}

const goldens = goldenNames.map(readGolden);
const sessions = goldens.flatMap(({ path, prompts, greedy }): Session[] => {
  const logits = prompts.map((promptTokenIds): Call => ({ type: 'logits', promptTokenIds }));
  const texts = prompts.map((promptTokenIds, i): Call => {
    return { type: 'generate', prompt: { promptTokenIds }, params: { temperature: 0, ignoreEos: true, maxTokens: greedy[i]?.length ?? 0 } };
  });
  const small = { maxNumSeqs: 8, kvCacheMemoryBytes: 2 ** 24, ...device };
  return [
    { model: path, options: { dtype: 'float32', ...small }, rounds: [logits, texts] },
    { model: path, options: { dtype: 'bfloat16', ...small }, rounds: [logits] },
  ];
});
// The emulated device is slow: there the smaller one will do.
const storyName = process.env['NDS_CUDA'] === 'emulated' ? 'story-180k' : 'story-5m';
const story = fileURLToPath(new URL(`../../examples/models/${storyName}`, import.meta.url));
const { cases } = JSON.parse(readFileSync(join(story, 'expected.json'), 'utf8')) as {
  cases: { prompt_token_ids: number[]; token_ids: number[] }[];
};
const texts = cases.map(({ prompt_token_ids: promptTokenIds, token_ids }): Call => {
  return { type: 'generate', prompt: { promptTokenIds }, params: { temperature: 0, ignoreEos: true, maxTokens: token_ids.length } };
});
// One after the other, all at once, and in small pieces: the tokens are the same, sampled ones too.
const sampled = cases.map(({ prompt_token_ids: promptTokenIds }, i): Call => {
  const params = {
    temperature: 0.9,
    topK: i % 2 === 0 ? 0 : 40,
    topP: i % 3 === 0 ? 1 : 0.9,
    seed: 100 + i,
    maxTokens: 60,
    ignoreEos: true,
  };
  return { type: 'generate', prompt: { promptTokenIds }, params };
});
const exact = (dtype: 'float32' | 'bfloat16'): Session[] => [
  { model: story, options: { dtype, ...device }, rounds: sampled.map((call) => [call]) },
  { model: story, options: { dtype, ...device }, rounds: [sampled] },
  { model: story, options: { dtype, ...device, maxNumSeqs: 3, maxNumBatchedTokens: 17 }, rounds: [sampled] },
  {
    model: story,
    options: { dtype, ...device, speculativeConfig: { method: 'ngram', numSpeculativeTokens: 4, adaptiveK: false } },
    rounds: [sampled],
  },
];
const job = await runJob(worldSize, [
  ...sessions,
  { model: story, options: { dtype: 'float32', ...device }, rounds: [texts] },
  ...exact('float32'),
  ...exact('bfloat16'),
]);
goldens.forEach((golden, g) => {
  const [float32, bfloat16] = [job.sessions[g * 2] ?? [], job.sessions[g * 2 + 1] ?? []];
  golden.logits.forEach((expected, i) => {
    const error = relativeError(logitsOf(float32[i]), expected);
    check(error <= 2e-4, `${golden.name}: float32 logits of prompt ${i} are off by ${error}`);
    const cosine = smallestCosine(logitsOf(bfloat16[i]), expected, expected.length / (golden.prompts[i]?.length ?? 1));
    check(cosine >= 0.999, `${golden.name}: bfloat16 logits of prompt ${i} have a cosine of ${cosine}`);
    check(`${float32[golden.prompts.length + i]?.tokenIds}` === `${golden.greedy[i]}`, `${golden.name}: greedy text of prompt ${i}`);
  });
});
const [greedy = [], ...ways] = job.sessions.slice(goldens.length * 2);
cases.forEach(({ token_ids }, i) => check(`${greedy[i]?.tokenIds}` === `${token_ids}`, `${storyName}: greedy text ${i}`));
const tokens = (answers: readonly Answer[] | undefined, i: number) => `${answers?.[i]?.tokenIds}`;
for (const first of [0, 4]) {
  for (const [w, way] of ['all at once', 'in small pieces', 'with drafts of n-grams'].entries()) {
    cases.forEach((_, i) =>
      check(tokens(ways[first + w + 1], i) === tokens(ways[first], i), `${first === 0 ? 'float32' : 'bfloat16'} ${way}: sampled text ${i}`),
    );
  }
}
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
