/** Several open models in one process: the tokens of each alone, on the same threads. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { LLM, type LLMOptions } from '../../rank/index.ts';
import { goldenPath } from '../helpers/goldens.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const other = goldenPath('qwen2-bf16');
const options: LLMOptions = { dtype: 'float32', numThreads: 2, kvCacheMemoryBytes: 2 ** 23 };
const prompts = [11, 12, 13, 14].map((first) => ({ promptTokenIds: [first, 20, 30] }));
const params = prompts.map((_, seed) => ({ seed, maxTokens: 60, ignoreEos: true, logprobs: 2 }));

async function tokensOf(llm: LLM): Promise<unknown> {
  return (await llm.generate(prompts, params)).map(({ tokenIds, outputs }) => [tokenIds, outputs[0].logprobs]);
}

async function alone(model: string, own: LLMOptions = options): Promise<unknown> {
  const llm = await LLM.load(model, own);
  try {
    return await tokensOf(llm);
  } finally {
    await llm.close();
  }
}

t.test('two models, and one of them twice, generate at once what each does alone', async (t) => {
  const expected = [await alone(story), await alone(other), await alone(story)];
  // Loads that begin together come one after the other.
  const llms = await Promise.all([story, other, story].map((model) => LLM.load(model, options)));
  for (let round = 0; round < 3; round++) t.same(await Promise.all(llms.map(tokensOf)), expected, `round ${round}`);
  const [first, second, third] = llms as [LLM, LLM, LLM];

  const pending = tokensOf(second);
  const dropped = first.generate('One day', { maxTokens: 900, ignoreEos: true });
  await Promise.all([t.rejects(dropped, { code: 'ERR_CLOSED' }), first.close()]);
  t.same(await pending, expected[1], 'one closes in the midst of another');
  t.same(await tokensOf(third), expected[2]);
  await t.rejects(first.generate('One day'), { code: 'ERR_CLOSED' });

  const fourth = await LLM.load(story, options);
  t.same(await Promise.all([second, third, fourth].map(tokensOf)), [expected[1], expected[2], expected[0]], 'and one opens after it');
  await Promise.all([second, third, fourth].map((llm) => llm.close()));
  t.same(await alone(other), expected[1], 'the threads of the process start anew');
});

t.test('models with other numbers of threads take turns too', async (t) => {
  const sizes = [1, 2, 3].map((numThreads) => ({ ...options, numThreads }));
  const expected = await alone(story);
  const llms = await Promise.all(sizes.map((own) => LLM.load(story, own)));
  t.same(await Promise.all(llms.map(tokensOf)), [expected, expected, expected]);
  await Promise.all(llms.map((llm) => llm.close()));
});

t.test('a step of one model does not wait for all steps of another', async (t) => {
  const [busy, brief] = (await Promise.all([story, story].map((model) => LLM.load(model, options)))) as [LLM, LLM];
  let isOver = false;
  const long = busy.generate(prompts, { maxTokens: 900, ignoreEos: true }).then(() => {
    isOver = true;
  });
  await brief.generate('One day', { maxTokens: 20, ignoreEos: true });
  t.notOk(isOver, 'twenty steps of one end within nine hundred of the other');
  await long;
  await Promise.all([busy.close(), brief.close()]);
});

t.test('a load that fails leaves others, and its place', async (t) => {
  const llm = await LLM.load(story, options);
  await t.rejects(LLM.load('no/such/folder', options), { code: 'ERR_MODEL_NOT_FOUND' });
  t.equal((await llm.generate('One day', { maxTokens: 3 })).tokenIds.length, 3);
  await llm.close();
});
