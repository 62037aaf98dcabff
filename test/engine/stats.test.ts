/** `llm.stats()` of real steps, with and without asynchronous scheduling, which yield the same tokens. */
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

t.test('NDS_KV_DEBUG, or a load option, prints KV events', async (t) => {
  const lines: string[] = [];
  const write = process.stderr.write;
  t.teardown(() => {
    process.stderr.write = write;
    delete process.env['NDS_KV_DEBUG'];
  });
  process.stderr.write = ((text: string) => lines.push(text)) as unknown as typeof write;
  const run = async (kvDebug?: boolean) => {
    lines.length = 0;
    const llm = await LLM.load(model, { numThreads: 1, kvDebug });
    await llm.generate({ promptTokenIds: [1, 2, 3] }, { ...params, maxTokens: 2 });
    await llm.close();
    return lines.join('').replace(/\d+ free/g, 'N free');
  };
  const expected = [
    'kv allocate request 0: block 0 (N free)',
    'kv table    request 0: 0',
    'kv slot     request 0: slot 0',
    'kv write    request 0: step 0, tokens 0-2 -> 0:0-2',
    'kv write    request 0: step 1, token 3 -> 0:3',
    'kv free     request 0: block 0 (N free)',
    '',
  ].join('\n');
  t.equal(await run(), '');
  t.equal(await run(true), expected);
  process.env['NDS_KV_DEBUG'] = '1';
  t.equal(await run(), expected);
  t.equal(await run(false), '', 'the option wins');
  process.env['NDS_KV_DEBUG'] = 'yes';
  await t.rejects(run(), { code: 'ERR_USAGE', message: 'Expected 0 or 1 for NDS_KV_DEBUG but received "yes"' });
});
