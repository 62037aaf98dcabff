/**
 * Speculation in one process: the same tokens and log-probabilities as without it for every proposer; ends, counters
 * and leaks.
 */
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { LLM, type LLMOptions, type SpeculativeConfig } from '../../rank/index.ts';
import { goodModel } from '../helpers/checkpoint-edits.ts';
import { writeBlurredModel } from '../helpers/draft-folders.ts';
import { base, calls, checkEmpty, generate, refrain, tale, visible } from '../helpers/speculative-calls.ts';

function blurredModel(t: Test): string {
  const folder = join(t.testdir({}), 'blurred');
  writeBlurredModel(folder);
  return folder;
}

test('a model that drafts for itself is always right', async (t) => {
  const kinds: readonly LLMOptions[] = [
    {},
    { dtype: 'bfloat16', asyncScheduling: false },
    { kvCacheDtype: 'int8', maxNumBatchedTokens: 64 },
  ];
  for (const [i, rejectionSampleMethod] of (['coupled', 'standard', 'block'] as const).entries()) {
    for (const numSpeculativeTokens of [1, 4, 32]) {
      const speculativeConfig = { model: goodModel, numSpeculativeTokens, adaptiveK: false, rejectionSampleMethod };
      await using llm = await LLM.load(goodModel, { ...base, ...kinds[i], speculativeConfig });
      await generate(llm);
      const { numDraftTokens = 0, numAcceptedTokens = -1, numDrafts = 0 } = llm.stats().speculation ?? {};
      t.equal(numAcceptedTokens, numDraftTokens, `${rejectionSampleMethod}, K = ${numSpeculativeTokens}`);
      t.ok(numDraftTokens > 200 && (numSpeculativeTokens === 1) === (numDrafts === numDraftTokens), `${numDraftTokens} tokens`);
      checkEmpty(t, llm);
    }
  }
});

test('a greedy draft of itself is always right where the model is greedy', async (t) => {
  for (const rejectionSampleMethod of ['coupled', 'standard', 'block'] as const) {
    const speculativeConfig = { model: goodModel, adaptiveK: false, draftSampleMethod: 'greedy', rejectionSampleMethod } as const;
    await using llm = await LLM.load(goodModel, { ...base, speculativeConfig });
    await llm.generate([tale, 'Tom', refrain], { temperature: 0, maxTokens: 40, ignoreEos: true });
    const { numDraftTokens, numAcceptedTokens } = llm.stats().speculation ?? {};
    t.ok(numAcceptedTokens === numDraftTokens && Number(numDraftTokens) > 60, rejectionSampleMethod);
    await llm.generate(tale, { seed: 1, maxTokens: 60, ignoreEos: true });
    const sampled = llm.stats().speculation;
    t.ok((sampled?.numAcceptedTokens ?? 0) < (sampled?.numDraftTokens ?? 0), 'and not where it is not');
  }
});

test('tokens, log-probabilities and ends are those of decoding alone', async (t) => {
  const blurred = blurredModel(t);
  const every = { method: ['draft_model', 'ngram', 'suffix'], model: blurred, promptLookupMin: 1 } as const;
  const ways: readonly (readonly [LLMOptions, SpeculativeConfig])[] = [
    [{}, { model: blurred, adaptiveK: false }],
    [{ asyncScheduling: false }, { model: blurred, numSpeculativeTokens: 3 }],
    [{}, { model: blurred, draftSampleMethod: 'greedy', adaptiveK: false }],
    [{}, { model: goodModel, numSpeculativeTokens: 12, adaptiveK: false }],
    [{}, { method: 'ngram', promptLookupMin: 1, adaptiveK: false }],
    [{ asyncScheduling: false }, { method: 'ngram', promptLookupMin: 1, adaptiveK: false, numSpeculativeTokens: 1 }],
    [{}, { method: 'suffix' }],
    [
      { maxNumBatchedTokens: 32, maxNumSeqs: 8 },
      { ...every, adaptiveK: false },
    ],
    [{ asyncScheduling: false, enablePrefixCaching: false }, every],
    [{ dtype: 'bfloat16' }, { ...every, adaptiveK: false, draftSampleMethod: 'greedy' }],
    [{ kvCacheDtype: 'int8' }, { ...every, adaptiveK: false, numSpeculativeTokens: 7 }],
    [
      { kvCacheDtype: 'bfloat16', maxNumBatchedTokens: 64 },
      { ...every, adaptiveK: false },
    ],
    [
      { dtype: 'bfloat16', kvCacheDtype: 'int8', numThreads: 2 },
      { model: blurred, adaptiveK: false },
    ],
    // Too little memory for all sequences: they are preempted for each other, never for drafts.
    [{ kvCacheMemoryBytes: 85_000 }, { model: blurred, adaptiveK: false }],
  ];
  const expected = new Map<string, ReturnType<typeof visible>>();
  for (const [options, speculativeConfig] of ways) {
    const { dtype = 'float32', kvCacheDtype = 'auto' } = options;
    const kind = `${dtype}, ${kvCacheDtype}`;
    if (!expected.has(kind)) {
      await using plain = await LLM.load(goodModel, { ...base, dtype, kvCacheDtype });
      expected.set(kind, visible(await generate(plain)));
    }
    await using llm = await LLM.load(goodModel, { ...base, ...options, speculativeConfig });
    const name = JSON.stringify([options, { ...speculativeConfig, model: undefined }]);
    const outputs = await generate(llm);
    t.same(visible(outputs), expected.get(kind), name);
    t.same(visible(await generate(llm)), expected.get(kind), 'and again, when prompts are cached and suffixes known');
    if (speculativeConfig.adaptiveK === false) t.ok((llm.stats().speculation?.numAcceptedTokens ?? 0) > 50, 'drafts stay');
    if (options.kvCacheMemoryBytes !== undefined) t.ok(llm.stats().numPreemptions > 0, 'some were preempted');
    checkEmpty(t, llm);
  }
  const ends = [...(expected.get('float32, auto') ?? [])].flatMap(({ outputs }) => outputs);
  const reasons = new Set(ends.map(({ finishReason, stopReason }) => `${finishReason} ${typeof stopReason}`));
  t.same([...reasons].sort(), ['length object', 'stop number', 'stop object', 'stop string'], 'every kind of end was met');
});

test('what is counted adds up', async (t) => {
  const blurred = blurredModel(t);
  const speculativeConfig = { model: blurred, numSpeculativeTokens: 6, adaptiveK: false, rejectionSampleMethod: 'block' } as const;
  await using llm = await LLM.load(goodModel, { ...base, speculativeConfig });
  const outputs = (await generate(llm, calls.slice(0, 8))).flatMap((output) => output.outputs);
  const total = llm.stats().speculation;
  const sum = (values: readonly number[] = []) => values.reduce((a, b) => a + b, 0);
  const histogram = total?.numStepsByNumDrafts ?? [];
  const perPos = total?.numAcceptedTokensPerPos ?? [];
  t.equal(total?.numDrafts, sum(histogram.slice(1)));
  t.equal(total?.numDraftTokens, sum(histogram.map((count, k) => count * k)));
  t.equal(total?.numAcceptedTokens, sum(perPos));
  t.equal(perPos.length, 6);
  t.ok(
    perPos.every((count, i) => i === 0 || count <= (perPos[i - 1] as number)),
    `never more than before: ${perPos}`,
  );
  t.equal(total?.meanAcceptanceLength, 1 + (total?.numAcceptedTokens ?? 0) / (total?.numDrafts ?? 0));
  // The prefill yields a text's first token; each further step yields one token and the accepted drafts.
  const numTokens = sum(outputs.map(({ tokenIds }) => tokenIds.length - 1));
  t.equal(sum(histogram) + (total?.numAcceptedTokens ?? 0), numTokens);
  for (const field of ['numDrafts', 'numDraftTokens', 'numAcceptedTokens'] as const) {
    t.equal(sum(outputs.map(({ speculation }) => speculation?.[field] ?? 0)), total?.[field], `${field} of all outputs`);
  }
  await llm.close();
  await using plain = await LLM.load(goodModel, base);
  t.equal((await plain.generate(tale)).outputs[0].speculation, null);
  t.equal(plain.stats().speculation, null);
});

test('a stream brings several tokens in a chunk, and leaving it in mid-round leaves nothing', async (t) => {
  const blurred = blurredModel(t);
  await using plain = await LLM.load(goodModel, base);
  const params = { seed: 5, maxTokens: 120, ignoreEos: true, logprobs: 1, n: 2 };
  const expected = await plain.generate(tale, params);
  await plain.close();
  for (const model of [goodModel, blurred]) {
    await using llm = await LLM.load(goodModel, { ...base, speculativeConfig: { model, adaptiveK: false } });
    const whole = [0, 1].map(() => ({ text: '', tokenIds: [] as number[], logprobs: [] as unknown[] }));
    let longest = 0;
    for await (const { index, text, tokenIds, logprobs } of llm.stream(tale, params)) {
      const sample = whole[index] as (typeof whole)[number];
      sample.text += text;
      sample.tokenIds.push(...tokenIds);
      sample.logprobs.push(...(logprobs ?? []));
      longest = Math.max(longest, tokenIds.length);
    }
    t.same(
      whole,
      expected.outputs.map(({ text, tokenIds, logprobs }) => ({ text, tokenIds, logprobs })),
    );
    t.ok(longest > 1, `${longest} tokens at once`);
    checkEmpty(t, llm);
    for (let numChunks = 1; numChunks < 6; numChunks++) {
      const others = llm.generate([tale, refrain], { temperature: 0, maxTokens: 30, ignoreEos: true });
      let seen = 0;
      for await (const _ of llm.stream(tale, { ...params, maxTokens: 200 })) if (++seen === numChunks) break;
      await others;
      checkEmpty(t, llm);
    }
  }
});
