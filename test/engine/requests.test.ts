/**
 * Every feature of a request, end to end on a model of this repository: samples, log-probabilities, ends, aborts,
 * priorities, cached prompts.
 */
import { getEventListeners } from 'node:events';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { LLM, type PositionLogprobs, type RequestOutput } from '../../rank/index.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const prompt = 'Once upon a time';

/** A prompt of whole blocks plus one token, of arbitrary ids. */
const longPrompt = { promptTokenIds: Array.from({ length: 97 }, (_, i) => (i * 131 + 7) % 2000) };

test('n samples are those of n requests with the same seed and their own sample index', async (t) => {
  await using llm = await LLM.load(model);
  const params = { temperature: 1, seed: 5, maxTokens: 20 };
  const { outputs, seed } = await llm.generate(prompt, { ...params, n: 4 });
  t.same(
    outputs.map(({ index }) => index),
    [0, 1, 2, 3],
  );
  t.equal(new Set(outputs.map(({ text }) => text)).size, 4, 'they differ');
  t.equal(seed, 5);
  t.same(outputs[0], (await llm.generate(prompt, params)).outputs[0], 'the first is what n = 1 gives');
  const more = await llm.generate(prompt, { ...params, n: 5 });
  t.same(more.outputs.slice(0, 4), outputs, 'more samples change none');

  const texts: string[] = ['', '', '', ''];
  let numFinished = 0;
  for await (const chunk of llm.stream(prompt, { ...params, n: 4 })) {
    texts[chunk.index] += chunk.text;
    if (chunk.finishReason !== null) numFinished++;
    t.equal(chunk.finished, numFinished === 4);
  }
  t.same(
    texts,
    outputs.map(({ text }) => text),
    'a stream of them interleaves',
  );
});

/** Sum of probabilities, at most 1 for any list of distinct tokens. */
const mass = (logprobs: readonly { readonly logprob: number }[]) => logprobs.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);

test('log-probabilities are those of the logits, before any parameter acts', async (t) => {
  await using llm = await LLM.load(model, { dtype: 'float32' });
  const output = await llm.generate(prompt, { temperature: 0, maxTokens: 6, logprobs: 3, promptLogprobs: 2, presencePenalty: 2 });
  const { promptTokenIds, promptLogprobs } = output;
  const { tokenIds, logprobs, cumulativeLogprob } = output.outputs[0];
  const all = [...promptTokenIds, ...tokenIds];
  const { data, shape } = await llm.computeLogits(all);
  const positions = [...(promptLogprobs ?? []), ...(logprobs ?? [])];
  t.equal(positions.length, all.length);
  t.equal(positions[0], null, 'nothing comes before the first token');
  for (let i = 1; i < all.length; i++) {
    const row = data.subarray((i - 1) * shape[1], i * shape[1]);
    const max = Math.max(...row);
    const logSum = max + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0));
    const order = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
    const { tokenId, logprob, rank, top, token } = positions[i] as PositionLogprobs;
    t.equal(tokenId, all[i]);
    t.ok(Math.abs(logprob - ((row[tokenId] as number) - logSum)) < 1e-5, `position ${i}`);
    t.equal(rank, order.indexOf(tokenId) + 1);
    t.same(
      top.map((other) => other.tokenId),
      order.slice(0, i < promptTokenIds.length ? 2 : 3),
    );
    t.ok(mass(top) <= 1 + 1e-6);
    t.type(token, 'string');
  }
  const sum = logprobs?.reduce((total, { logprob }) => total + logprob, 0);
  t.equal(cumulativeLogprob, sum);
  t.equal((await llm.generate(prompt, { maxTokens: 1 })).outputs[0].logprobs, null, 'none unless asked for');
  const chunks = [];
  for await (const chunk of llm.stream(prompt, { temperature: 0, maxTokens: 3, promptLogprobs: 2 })) chunks.push(chunk);
  t.same(chunks[0]?.promptLogprobs, promptLogprobs, 'a stream brings those of the prompt first');
  t.ok(chunks.slice(1).every((chunk) => chunk.promptLogprobs === null));
});

test('a text ends at stop tokens and strings, not before minTokens, with or without them', async (t) => {
  await using llm = await LLM.load(model);
  const params = { temperature: 0, maxTokens: 30, ignoreEos: true };
  const whole = (await llm.generate(prompt, params)).outputs[0];
  const stopTokenId = whole.tokenIds[4] as number;
  const first = whole.tokenIds.indexOf(stopTokenId);
  const stopped = (await llm.generate(prompt, { ...params, stopTokenIds: [stopTokenId] })).outputs[0];
  t.match(stopped, { tokenIds: whole.tokenIds.slice(0, first + 1), finishReason: 'stop', stopReason: stopTokenId });
  const shown = (await llm.generate(prompt, { ...params, stopTokenIds: [stopTokenId], includeStopStrInOutput: true })).outputs[0];
  t.ok(shown.text.startsWith(stopped.text) && shown.text.length > stopped.text.length, 'the stop token is text only when asked for');
  const later = (await llm.generate(prompt, { ...params, stopTokenIds: [stopTokenId], minTokens: 12 })).outputs[0];
  t.ok(later.tokenIds.length > 12 && !later.tokenIds.slice(0, 12).includes(stopTokenId), 'it is not drawn before its time');
  const stop = whole.text.slice(10, 13);
  const cut = (await llm.generate(prompt, { ...params, stop })).outputs[0];
  t.match(cut, { text: whole.text.slice(0, whole.text.indexOf(stop)), finishReason: 'stop', stopReason: stop });
  const included = (await llm.generate(prompt, { ...params, stop, includeStopStrInOutput: true })).outputs[0];
  t.equal(included.text, cut.text + stop);
});

test('bad words are never completed, and only allowed tokens are drawn', async (t) => {
  await using llm = await LLM.load(model);
  const params = { temperature: 0.8, seed: 3, maxTokens: 60, ignoreEos: true };
  const word = /\b[a-z]{3,}\b/.exec((await llm.generate(prompt, params)).text)?.[0] as string;
  const without = await llm.generate(prompt, { ...params, badWords: [word] });
  t.notOk(new RegExp(`\\b${word}\\b`).test(without.text), `no "${word}" in "${without.text}"`);
  const allowedTokenIds = [300, 301, 302, 900];
  const { tokenIds } = await llm.generate(prompt, { ...params, allowedTokenIds });
  t.ok(tokenIds.every((id) => allowedTokenIds.includes(id)));
  for (const wrong of [{ allowedTokenIds: [5000] }, { logitBias: { 5000: 1 } }, { stopTokenIds: [5000] }]) {
    await t.rejects(llm.generate(prompt, wrong), { code: 'ERR_REQUEST', message: /5000/ });
  }
});

test('an abort signal ends a call at once, and gives its blocks back', async (t) => {
  await using llm = await LLM.load(model);
  const controller = new AbortController();
  const reason = new Error('enough');
  const endless = { ignoreEos: true, maxTokens: 900 };
  const calls = llm.generate([prompt, prompt, longPrompt], { ...endless, n: 2 }, { signal: controller.signal });
  t.equal(getEventListeners(controller.signal, 'abort').length, 1, 'one listener a call');
  const stream = llm.stream(prompt, endless, { signal: controller.signal });
  await stream.next();
  controller.abort(reason);
  await t.rejects(calls, { code: 'ERR_ABORTED', cause: reason });
  await t.rejects(
    async () => {
      for await (const _ of stream);
    },
    { code: 'ERR_ABORTED' },
  );
  t.match(llm.stats(), { numRunning: 0, numWaiting: 0, numFreeBlocks: llm.options.numBlocks });
  t.equal(getEventListeners(controller.signal, 'abort').length, 0);
  await t.rejects(llm.generate(prompt, {}, { signal: controller.signal }), { code: 'ERR_ABORTED' }, 'a signal that has fired');
  t.equal((await llm.generate(prompt, { maxTokens: 3, ignoreEos: true })).tokenIds.length, 3, 'others go on');
  await t.rejects(llm.chat([], {}, null as unknown as object), { code: 'ERR_REQUEST' });
  for (const wrong of [{ signal: 1 }, { priority: 0.5 }, { priorty: 1 }]) {
    await t.rejects(llm.generate(prompt, {}, wrong as object), { code: 'ERR_REQUEST' });
  }
});

test('requests of higher priority are served first', async (t) => {
  await using llm = await LLM.load(model, { schedulingPolicy: 'priority', maxNumSeqs: 1 });
  const order: number[] = [];
  const calls = [3, 1, 2, 1].map(async (priority, i) => {
    await llm.generate(prompt, { maxTokens: 4, ignoreEos: true }, { priority });
    order.push(i);
  });
  await Promise.all(calls);
  t.same(order, [1, 3, 2, 0]);
  await llm.close();
  await using plain = await LLM.load(model);
  await t.rejects(plain.generate(prompt, {}, { priority: 1 }), { code: 'ERR_REQUEST', message: /schedulingPolicy/ });
});

test('a prompt that was seen before is not computed again, and its request says so', async (t) => {
  await using llm = await LLM.load(model);
  const params = { temperature: 1, seed: 9, maxTokens: 8, logprobs: 2, ignoreEos: true };
  const fresh = await llm.generate(longPrompt, params);
  t.equal(fresh.numCachedTokens, 0);
  const { numPromptTokens } = llm.stats();
  const again = await llm.generate(longPrompt, params);
  t.equal(again.numCachedTokens, 96, 'whole blocks, and at most all but the last token');
  t.equal(llm.stats().numPromptTokens, numPromptTokens + 1);
  t.same(again.outputs, fresh.outputs);
  const whole = { promptTokenIds: longPrompt.promptTokenIds.slice(0, 64) };
  t.equal((await llm.generate(whole, params)).numCachedTokens, 63);
  const logprobs = await llm.generate(longPrompt, { ...params, promptLogprobs: 0 });
  t.equal(logprobs.numCachedTokens, 0, 'every row that is asked for is computed');
  const sampled: RequestOutput = await llm.generate({ promptTokenIds: [...whole.promptTokenIds, 5, 6, 7] }, { ...params, n: 3 });
  t.equal(sampled.outputs.length, 3);
  await llm.close();
  await using without = await LLM.load(model, { enablePrefixCaching: false });
  await without.generate(longPrompt, params);
  const uncached = await without.generate(longPrompt, params);
  t.equal(uncached.numCachedTokens, 0);
  t.same(uncached.outputs, fresh.outputs);
});
