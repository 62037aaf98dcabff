/** `llm.embed` on a small real model: against Hugging Face transformers, and what must not change a bit of it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type EmbeddingOutput, type EmbedOptions, LLM, type LLMOptions } from '../../rank/index.ts';
import { relativeError } from '../helpers/goldens.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const options = { dtype: 'float32', numThreads: 1 } as const;

interface Case {
  readonly prompt: string;
  readonly promptTokenIds: readonly number[];
  readonly last: number[];
  readonly mean: number[];
  readonly unitLast: number[];
  readonly unitMean: number[];
}
const cases: Case[] = JSON.parse(readFileSync(new URL('../fixtures/embeddings.json', import.meta.url), 'utf8'));
const longPrompt = (length: number, step: number) => ({
  promptTokenIds: Array.from({ length }, (_, i) => (i * i * step + 17 * i + 5) % 1200),
});
const prompts = [...cases.map(({ prompt }) => prompt), longPrompt(300, 3), longPrompt(97, 5), longPrompt(1, 1), longPrompt(33, 7)];
const ways: EmbedOptions[] = [{}, { pooling: 'mean' }, { normalize: false }, { pooling: 'mean', normalize: false }];
const bits = (outputs: readonly EmbeddingOutput[]) => outputs.map(({ embedding }) => Buffer.from(embedding.slice().buffer).toString('hex'));

t.test('an open model', async (t) => {
  const llm = await LLM.load(model, options);
  t.teardown(() => llm.close());
  const { numFreeBlocks } = llm.stats();
  t.afterEach(() => t.match(llm.stats(), { numFreeBlocks, numRunning: 0, numWaiting: 0 }, 'nothing is left behind'));

  await t.test('embeds as transformers does', async (t) => {
    for (const expected of cases) {
      const fields = {
        last: { normalize: false },
        mean: { pooling: 'mean', normalize: false },
        unitLast: {},
        unitMean: { pooling: 'mean' },
      } as const;
      for (const [field, way] of Object.entries(fields)) {
        const { prompt, promptTokenIds, embedding } = await llm.embed(expected.prompt, way);
        t.same([prompt, promptTokenIds], [expected.prompt, expected.promptTokenIds]);
        const error = relativeError(embedding, expected[field as keyof typeof fields]);
        t.ok(error < 1e-5, `${field} of ${promptTokenIds.length} tokens: ${error}`);
      }
    }
  });

  await t.test('an embedding is one for one prompt, a list for a list, and whole as JSON', async (t) => {
    const one = await llm.embed('A dog');
    const [same, other] = await llm.embed(['A dog', { promptTokenIds: Int32Array.of(5, 6) }]);
    t.same(same, one);
    t.same([other?.prompt, other?.promptTokenIds], [null, [5, 6]]);
    t.same(await llm.embed([]), []);
    const length = Math.hypot(...one.embedding);
    t.ok(Math.abs(length - 1) < 1e-6, `length ${length}`);
    const { prompt, promptTokenIds, embedding } = one;
    t.same(JSON.parse(JSON.stringify(one)), { prompt, promptTokenIds, embedding: Array.from(embedding) });
  });

  await t.test('the whole context is a prompt, and one more token is not', async (t) => {
    const { maxModelLen } = llm.options;
    t.equal((await llm.embed(longPrompt(maxModelLen, 3))).promptTokenIds.length, maxModelLen);
    await t.rejects(llm.embed(longPrompt(maxModelLen + 1, 3)), {
      code: 'ERR_REQUEST',
      message: new RegExp(`at most ${maxModelLen} tokens`),
    });
  });

  await t.test('refuses bad prompts and options, and stops at a signal', async (t) => {
    const bad = { code: 'ERR_REQUEST' };
    await t.rejects(llm.embed(['A dog', '']), bad);
    await t.rejects(llm.embed('A dog', { pooling: 'cls' } as never), { ...bad, message: /'last' or 'mean' for pooling/ });
    await t.rejects(llm.embed('A dog', { normalise: true } as never), { ...bad, message: /'normalise'/ });
    await t.rejects(llm.embed('A dog', 7 as never), bad);
    await t.rejects(llm.embed('A dog', { priority: 1 }), { ...bad, message: /priority/ });
    await t.rejects(llm.embed('A dog', { signal: AbortSignal.abort() }), { code: 'ERR_ABORTED' });
    const controller = new AbortController();
    const pending = llm.embed([longPrompt(1000, 3), longPrompt(900, 5)], { signal: controller.signal, pooling: 'mean' });
    controller.abort();
    await t.rejects(pending, { code: 'ERR_ABORTED' });
  });
});

t.test('batch, chunks, threads and the prefix cache change no bit', async (t) => {
  const loads: Record<string, LLMOptions> = {
    'chunks of 16 tokens': { maxNumSeqs: 8, maxNumBatchedTokens: 16 },
    'chunks of 57 tokens': { maxNumSeqs: 8, maxNumBatchedTokens: 57 },
    'two at a time': { maxNumSeqs: 2 },
    'two threads': { numThreads: 2 },
  };
  const alone = await LLM.load(model, options);
  const expected: string[][] = [];
  for (const way of ways) {
    const outputs: EmbeddingOutput[] = [];
    for (const prompt of prompts) outputs.push(await alone.embed(prompt, way));
    expected.push(bits(outputs));
    t.same(bits(await alone.embed(prompts, way)), expected.at(-1), 'in one batch, with a warm prefix cache');
  }
  t.equal(alone.stats().numPrefixHitTokens, 0, 'nothing was taken from the prefix cache');
  const text = await alone.generate(longPrompt(300, 3), { temperature: 0, maxTokens: 1 });
  t.ok(text.numCachedTokens > 0, 'a later prompt may take what an embedding computed');
  await alone.close();
  for (const [name, load] of Object.entries(loads)) {
    const llm = await LLM.load(model, { ...options, ...load });
    const texts = ['One day', 'Tom'].map((prompt) => llm.generate(prompt, { seed: 3, maxTokens: 60, ignoreEos: true }));
    for (const [i, way] of ways.entries()) t.same(bits(await llm.embed(prompts, way)), expected[i], `${name}, beside texts`);
    await Promise.all(texts);
    await llm.close();
  }
});

t.test('an embedding that is preempted is the same', async (t) => {
  const long = [longPrompt(300, 3), longPrompt(297, 5), longPrompt(290, 7)];
  const whole = await LLM.load(model, options);
  const expected = bits(await whole.embed(long, { pooling: 'mean' }));
  const { kvBytes } = whole.shards[0] as (typeof whole.shards)[0];
  const bytesPerBlock = kvBytes / whole.options.numBlocks;
  await whole.close();
  // Room for one of the prompts, which texts of higher priority push out.
  const size = { kvCacheMemoryBytes: 12 * bytesPerBlock, maxNumBatchedTokens: 16, maxNumSeqs: 4, schedulingPolicy: 'priority' } as const;
  const llm = await LLM.load(model, { ...options, ...size });
  t.teardown(() => llm.close());
  const embedded = llm.embed(long, { pooling: 'mean', priority: 1 });
  for (let i = 0; i < 6; i++) await llm.generate(longPrompt(100, 11 + i), { seed: i, maxTokens: 4, ignoreEos: true }, { priority: 0 });
  t.same(bits(await embedded), expected);
  t.ok(llm.stats().numPreemptions > 0, 'embeddings were preempted');
});

t.test('an LLM that is closed embeds nothing', async (t) => {
  const llm = await LLM.load(model, options);
  const pending = llm.embed(longPrompt(1000, 3));
  await Promise.all([t.rejects(pending, { code: 'ERR_CLOSED' }), llm.close()]);
  await t.rejects(llm.embed('A dog'), { code: 'ERR_CLOSED' });
});
