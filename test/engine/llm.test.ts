/** `LLM` on a small real model in this process: results of its calls, and what they leave behind. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { LLM, type StreamChunk } from '../../rank/index.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const options = { dtype: 'float32', numThreads: 1 } as const;
const greedy = { temperature: 0, maxTokens: 12 };

t.test('a loaded model', async (t) => {
  const llm = await LLM.load(model, options);
  t.teardown(() => llm.close());
  const { numFreeBlocks } = llm.stats();
  t.afterEach(() => t.match(llm.stats(), { numFreeBlocks, numRunning: 0, numWaiting: 0 }, 'nothing is left behind'));

  t.test('one prompt gives one output, several give as many', async (t) => {
    const single = await llm.generate('Once upon a time', greedy);
    t.match(single, { prompt: 'Once upon a time', outputs: [{ index: 0, finishReason: 'length', stopReason: null }] });
    t.equal(single.tokenIds.length, 12);
    t.equal(single.text, single.outputs[0].text);
    const { promptTokenIds } = single;
    const [fromText, fromIds] = await llm.generate(['Once upon a time', { promptTokenIds: Int32Array.from(promptTokenIds) }], greedy);
    t.same([fromText?.text, fromIds?.text], [single.text, single.text]);
    t.equal(fromIds?.prompt, null);
    t.same(fromIds?.promptTokenIds, promptTokenIds);
    t.same(await llm.generate([], greedy), []);
  });

  t.test('parameters are one for all or one for each', async (t) => {
    const outputs = await llm.generate(['One day', 'One day'], [{ ...greedy, maxTokens: 3 }, greedy]);
    t.same(
      outputs.map(({ tokenIds }) => tokenIds.length),
      [3, 12],
    );
    await t.rejects(llm.generate(['a', 'b'], [greedy]), { code: 'ERR_REQUEST', message: /Expected 2 sampling parameters/ });
  });

  t.test('a seed repeats a text, and a drawn one is reported', async (t) => {
    const drawn = await llm.generate('One day', { maxTokens: 20, ignoreEos: true });
    const { seed } = drawn;
    const again = await llm.generate(['Tom', 'One day', 'The'], { maxTokens: 20, ignoreEos: true, seed });
    t.same(again[1]?.tokenIds, drawn.tokenIds, 'the same tokens in another batch');
    const big = await llm.generate('One day', { maxTokens: 20, ignoreEos: true, seed: 2n ** 63n + BigInt(seed) });
    t.equal(big.seed, 2n ** 63n + BigInt(seed));
    t.notSame(big.tokenIds, drawn.tokenIds, 'all 64 bits count');
  });

  t.test('a stream brings the same text in pieces', async (t) => {
    const expected = await llm.generate('One day', { ...greedy, maxTokens: 40 });
    const chunks: StreamChunk[] = [];
    for await (const chunk of llm.stream('One day', { ...greedy, maxTokens: 40 })) chunks.push(chunk);
    t.equal(chunks.map(({ text }) => text).join(''), expected.text);
    t.same(
      chunks.flatMap(({ tokenIds }) => tokenIds),
      expected.tokenIds,
    );
    t.ok(chunks.length > 10);
    t.same(
      chunks.map(({ finished, finishReason }) => finished === (finishReason !== null)),
      chunks.map(() => true),
    );
    t.equal(
      chunks.findIndex(({ finished }) => finished),
      chunks.length - 1,
    );
  });

  t.test('leaving a stream early drops its request', async (t) => {
    let numChunks = 0;
    for await (const _ of llm.stream('One day', { maxTokens: 900, ignoreEos: true })) if (++numChunks === 3) break;
    t.match(llm.stats(), { numRunning: 0, numFreeBlocks });
  });

  t.test('a stop string ends the text before it', async (t) => {
    const { text } = await llm.generate('One day', { ...greedy, maxTokens: 40 });
    const stop = text.slice(15, 22);
    const stopped = await llm.generate('One day', { ...greedy, maxTokens: 40, stop: ['never in there', stop] });
    t.match(stopped.outputs, [{ text: text.slice(0, text.indexOf(stop)), finishReason: 'stop', stopReason: stop }]);
    t.ok(stopped.tokenIds.length < 40);
  });

  t.test('calls under way at once share their steps', async (t) => {
    const { numSteps } = llm.stats();
    await Promise.all([llm.generate('One day', greedy), llm.generate('Tom', greedy), llm.generate('The', greedy)]);
    // Steps in flight for the previous texts, past their stop string, count too.
    t.ok(llm.stats().numSteps - numSteps < 18, `three texts of twelve tokens in ${llm.stats().numSteps - numSteps} steps`);
  });

  t.test('logits of a prompt', async (t) => {
    const ids = Array.from({ length: 300 }, (_, i) => (i * 37) % 2048);
    const [whole, part] = await Promise.all([llm.computeLogits(ids), llm.computeLogits(Int32Array.from(ids.slice(0, 5)))]);
    t.same(
      [whole.shape, part.shape],
      [
        [300, 2048],
        [5, 2048],
      ],
    );
    t.equal(whole.data.length, 300 * 2048);
    t.same(part.data, whole.data.subarray(0, 5 * 2048), 'the same bits, however the prompt was cut');
    const lastRow = whole.data.subarray(299 * 2048);
    const [next] = (await llm.generate({ promptTokenIds: ids }, { ...greedy, maxTokens: 1 })).tokenIds;
    t.equal(lastRow.indexOf(Math.max(...lastRow)), next, 'greedy takes the largest');
  });

  t.test('one bad prompt fails its call, and no other', async (t) => {
    const other = llm.generate('One day', greedy);
    const { maxModelLen } = llm.options;
    const tooLong = { promptTokenIds: new Array(maxModelLen).fill(1) };
    await t.rejects(llm.generate(['Tom', tooLong], { maxTokens: 900, ignoreEos: true }), {
      code: 'ERR_REQUEST',
      message: /at most 1023 tokens/,
    });
    t.equal((await other).tokenIds.length, 12);
  });
});

t.test('an LLM that is closed', async (t) => {
  const llm = await LLM.load(model, options);
  const underWay = llm.generate('One day', { maxTokens: 900, ignoreEos: true });
  const streaming = llm.stream('One day', { maxTokens: 900, ignoreEos: true });
  await streaming.next();
  const rejected = Promise.all([
    t.rejects(underWay, { code: 'ERR_CLOSED' }),
    t.rejects(
      async () => {
        for await (const _ of streaming);
      },
      { code: 'ERR_CLOSED' },
    ),
  ]);
  await Promise.all([llm.close(), llm.close()]);
  await rejected;
  await t.rejects(llm.generate('One day'), { code: 'ERR_CLOSED' });
  await t.rejects(llm.stream('One day').next(), { code: 'ERR_CLOSED' });
  await t.rejects(llm.computeLogits([1]), { code: 'ERR_CLOSED' });
  t.resolves(llm.close());
});

t.test('few blocks, few tokens a step and few slots change no token', async (t) => {
  const prompts = ['Once upon a time', 'One day', 'Tom', 'The little dog', 'There was a small boat on the lake and it', 'She'];
  const params = prompts.map((_, i) => ({ maxTokens: 60 + 9 * i, temperature: i % 2, seed: i, ignoreEos: true }));
  const run = async (overrides: object) => {
    await using llm = await LLM.load(model, { ...options, ...overrides });
    const outputs = await llm.generate(prompts, params);
    return {
      tokenIds: outputs.map(({ tokenIds }) => tokenIds),
      ...llm.stats(),
      bytes: (llm.shards[0]?.kvBytes ?? 0) / llm.options.numBlocks,
    };
  };
  const roomy = await run({});
  const tight = await run({ kvCacheMemoryBytes: roomy.bytes * 7, maxNumSeqs: 5, maxNumBatchedTokens: 7 });
  t.same(tight.tokenIds, roomy.tokenIds);
  t.same([roomy.numPreemptions, tight.numPreemptions > 0], [0, true], `${tight.numPreemptions} preemptions`);
  t.equal(tight.numFreeBlocks, 7);
});

t.test('maxTokens beyond the KV cache end with it, as with the context', async (t) => {
  const options = { dtype: 'float32', maxModelLen: 1024, maxNumSeqs: 2, enablePrefixCaching: false } as const;
  const bytesPerBlock = await (async () => {
    await using llm = await LLM.load(model, options);
    return (llm.shards[0]?.kvBytes ?? 0) / llm.options.numBlocks;
  })();
  await using llm = await LLM.load(model, { ...options, kvCacheMemoryBytes: bytesPerBlock * 4 });
  const numCacheable = llm.options.numBlocks * llm.options.blockSize;
  t.ok(numCacheable < 1000, `${numCacheable} tokens`);
  const prompt = { promptTokenIds: Array.from({ length: 20 }, (_, i) => 259 + i) };
  const two = await llm.generate([prompt, prompt], { temperature: 0, maxTokens: 1000, ignoreEos: true });
  for (const { tokenIds, finishReason } of two.flatMap(({ outputs }) => outputs)) {
    t.equal(finishReason, 'length');
    t.equal(tokenIds.length, numCacheable + 1 - 20);
  }
});
