/** What `llm.stats()` says of real steps, with and without asynchronous scheduling, which changes no token. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { LLM } from '../../rank/index.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const prompts = ['Once upon a time', 'One day', 'Tom and Lily'];
const params = { temperature: 1, seed: 4, maxTokens: 40, ignoreEos: true };

t.test('statistics', async (t) => {
  const texts: string[][] = [];
  for (const asyncScheduling of [true, false]) {
    const llm = await LLM.load(model, { numThreads: 1, asyncScheduling });
    t.equal(llm.options.asyncScheduling, asyncScheduling);
    texts.push((await llm.generate(prompts, params)).map(({ text }) => text));
    const stats = llm.stats();
    const { histograms, numSteps, numPromptTokens } = stats;
    t.match(stats, { numSteps: 40, numTokens: 120, numRequests: 3, numFinishedRequests: 3, numAbortedRequests: 0, maxNumBlocksInUse: 6 });
    t.match(stats, { numPrefixQueryTokens: numPromptTokens, numPrefixHitTokens: 0 });
    const counts = Object.fromEntries(Object.entries(histograms).map(([name, { count }]) => [name, count]));
    t.same(counts, {
      queue: 3,
      prefill: 3,
      decode: 3,
      timeToFirstToken: 3,
      interToken: 117,
      step: numSteps,
      hostGap: numSteps - 1,
    });
    t.ok(histograms.step.sum > 0 && Math.abs(histograms.step.sum - stats.executeSeconds) < 1e-9);
    t.same(structuredClone(stats), stats);
    await llm.generate('Tom', { ...params, maxTokens: 1 });
    t.equal(llm.stats().histograms.hostGap.count, numSteps - 1, 'no gap where there was nothing to do');
    await llm.close();
  }
  t.same(texts[0], texts[1]);
});
