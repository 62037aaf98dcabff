/**
 * Every golden checkpoint and every model of this repository, on one to four ranks, against Hugging Face transformers.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { type Answer, type Call, logitsOf, type Session, SharedJob } from '../helpers/gang.ts';
import { type Golden, goldenNames, readGolden, relativeError, smallestCosine } from '../helpers/goldens.ts';
import { part } from '../helpers/scale.ts';

const goldens = goldenNames.map(readGolden);
const dtypes = ['float32', 'bfloat16'] as const;

/** All logits of a golden model in both dtypes, then its greedy texts in float32. */
function sessionsOf({ path, prompts, greedy }: Golden): Session[] {
  const logits = prompts.map((promptTokenIds): Call => ({ type: 'logits', promptTokenIds }));
  const texts = prompts.map((promptTokenIds, i): Call => {
    const maxTokens = greedy[i]?.length ?? 0;
    return { type: 'generate', prompt: { promptTokenIds }, params: { temperature: 0, ignoreEos: true, maxTokens } };
  });
  return dtypes.map((dtype) => ({
    model: path,
    // With integers as they are, activations are rounded: test/model/kept-codes.test.ts.
    options: { dtype, numThreads: 1, quantization: 'expand' },
    rounds: dtype === 'float32' ? [logits, texts] : [logits],
  }));
}

const jobs = [1, 2, 3, 4].map((worldSize) => ({ worldSize, job: new SharedJob(worldSize) }));

let onOneRank: readonly (readonly Answer[])[] = [];
for (const { worldSize, job } of part(jobs, 3)) {
  const run = job.add(goldens.flatMap(sessionsOf));
  test(`goldens on ${worldSize} ranks`, async (t) => {
    const { sessions } = await run();
    goldens.forEach((golden, g) => {
      const [float32, bfloat16] = [sessions[g * 2] ?? [], sessions[g * 2 + 1] ?? []];
      golden.logits.forEach((expected, i) => {
        t.ok(relativeError(logitsOf(float32[i]), expected) <= 2e-4, `${golden.name}: float32 logits of prompt ${i}`);
        const width = expected.length / (golden.prompts[i]?.length ?? 1);
        t.ok(smallestCosine(logitsOf(bfloat16[i]), expected, width) >= 0.999, `${golden.name}: bfloat16 logits of prompt ${i}`);
        t.same(float32[golden.prompts.length + i]?.tokenIds, golden.greedy[i], `${golden.name}: greedy text of prompt ${i}`);
      });
    });
    if (worldSize === 1) onOneRank = sessions;
    t.same(sessions, onOneRank, 'the same bits as on one rank');
  });
}

/** A case with chat messages instead of a prompt is given by its token ids. */
interface ExpectedText {
  readonly prompt?: string;
  readonly prompt_token_ids: number[];
  readonly token_ids: number[];
  readonly text: string;
}

const shipped = fileURLToPath(new URL('../../examples/models/', import.meta.url));
const smollm2 = process.env['NDS_TEST_SMOLLM2'] ?? '';
const texts = [
  { name: 'story-5m', path: join(shipped, 'story-5m'), worldSizes: [1, 2, 3, 4], skip: false },
  { name: 'story-180k', path: join(shipped, 'story-180k'), worldSizes: [1, 2], skip: false },
  {
    name: 'smollm2-135m-instruct',
    path: smollm2,
    worldSizes: [1, 2, 3, 4],
    skip: existsSync(join(smollm2, 'config.json')) ? false : 'NDS_TEST_SMOLLM2 names no model folder',
  },
];

for (const { name, path, worldSizes, skip } of texts) {
  const file = join(path, 'expected.json');
  const { cases } = (skip === false ? JSON.parse(readFileSync(file, 'utf8')) : { cases: [] }) as { cases: ExpectedText[] };
  const round = cases.map(({ prompt, prompt_token_ids, token_ids }): Call => {
    const params = { temperature: 0, ignoreEos: true, maxTokens: token_ids.length };
    return { type: 'generate', prompt: prompt ?? { promptTokenIds: prompt_token_ids }, params };
  });
  const runs = part(jobs, 3)
    .filter(({ worldSize }) => skip === false && worldSizes.includes(worldSize))
    .map(({ worldSize, job }) => ({ worldSize, run: job.add([{ model: path, options: { dtype: 'float32' }, rounds: [round] }]) }));
  test(`texts of ${name}`, { skip }, async (t) => {
    for (const { worldSize, run } of runs) {
      const { sessions } = await run();
      cases.forEach((expected, i) => {
        const answer = sessions[0]?.[i];
        t.same(answer?.promptTokenIds, expected.prompt_token_ids, `${worldSize} ranks: prompt ${i}`);
        t.same(answer?.tokenIds, expected.token_ids, `${worldSize} ranks: tokens ${i}`);
        t.equal(answer?.text, expected.text, `${worldSize} ranks: text ${i}`);
      });
    }
  });
}
