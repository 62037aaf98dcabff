/**
 * Draft models that differ from the target: a shorter context, another padding of the vocabulary, and ones that do not
 * fit.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { LLM, type LLMOptions, type SpeculativeConfig } from '../../rank/index.ts';
import { copyGoodModel, editJson, goodModel, readTokenizer, writeTokenizer } from '../helpers/checkpoint-edits.ts';
import { writePaddedModel } from '../helpers/draft-folders.ts';
import { base, type Call, calls, checkEmpty, generate, refrain, tale, visible } from '../helpers/speculative-calls.ts';

const otherModel = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));

test('a draft model whose context ends before the text does', async (t) => {
  const folder = join(t.testdir({}), 'short');
  copyGoodModel(folder);
  editJson(folder, 'config.json', { max_position_embeddings: 48 });
  const some: readonly Call[] = [
    [tale, { seed: 1, maxTokens: 90, ignoreEos: true, logprobs: 0 }],
    [refrain, { seed: 2, maxTokens: 20, ignoreEos: true, logprobs: 0 }],
  ];
  await using plain = await LLM.load(goodModel, base);
  const expected = visible(await generate(plain, some));
  const numPromptTokens = (await plain.generate(tale, { maxTokens: 1 })).promptTokenIds.length;
  await plain.close();
  const speculativeConfig = { model: folder, numSpeculativeTokens: 4, adaptiveK: false };
  await using llm = await LLM.load(goodModel, { ...base, asyncScheduling: false, speculativeConfig });
  const outputs = await generate(llm, some);
  t.same(visible(outputs), expected);
  // Each step yields four drafts and one token, after the first token; the last draft may lie just past the draft's
  // context.
  const [first, second] = outputs.map((output) => output.outputs[0].speculation);
  t.equal(first?.numAcceptedTokens, first?.numDraftTokens);
  const reached = numPromptTokens + 1 + (first?.numDrafts ?? 0) + (first?.numAcceptedTokens ?? 0);
  t.ok(reached === 50, `drafts as far as position ${reached}`);
  t.equal(second?.numDraftTokens, 0, 'a prompt longer than its context');
  checkEmpty(t, llm);
});

test('drafts are measured within the limits of both models', async (t) => {
  const folder = join(t.testdir({}), 'short');
  copyGoodModel(folder);
  editJson(folder, 'config.json', { max_position_embeddings: 48 });
  const limits: readonly (readonly [model: string, LLMOptions])[] = [
    [folder, {}],
    [goodModel, { maxNumBatchedTokens: 32, maxNumSeqs: 2 }],
    [goodModel, { maxNumBatchedTokens: 2, maxNumSeqs: 2 }],
  ];
  for (const [model, options] of limits) {
    await using llm = await LLM.load(goodModel, { ...base, ...options, speculativeConfig: { model } });
    const { tokenIds } = await llm.generate(tale, { seed: 1, maxTokens: 60, ignoreEos: true });
    t.equal(tokenIds.length, 60);
  }
});

test('vocabularies that are padded differently', async (t) => {
  const padded = join(t.testdir({}), 'padded');
  writePaddedModel(padded, 64);
  // A prompt of ids without a token, which one of the models lacks.
  const some: readonly Call[] = [
    ...calls.slice(0, 5),
    [{ promptTokenIds: [484, 2050, 2111, 259] }, { seed: 9, maxTokens: 40, ignoreEos: true }],
  ];
  for (const [target, model] of [
    [goodModel, padded],
    [padded, goodModel],
    [padded, padded],
  ] as const) {
    const chosen = target === padded ? some : some.slice(0, 5);
    await using plain = await LLM.load(target, base);
    const expected = visible(await generate(plain, chosen));
    if (target === padded) {
      const { data, shape } = await plain.computeLogits(refrain.promptTokenIds);
      const likeliest = Array.from({ length: 70 }, (_, i) => data.subarray(i * shape[1], (i + 1) * shape[1])).map((row) =>
        row.indexOf(Math.max(...row)),
      );
      t.ok(likeliest.filter((id) => id >= 2048).length > 20, 'ids without a token are often the likeliest');
    }
    await plain.close();
    await using llm = await LLM.load(target, { ...base, speculativeConfig: { model, adaptiveK: false } });
    const outputs = await generate(llm, chosen);
    t.same(visible(outputs), expected);
    const { numAcceptedTokens = 0, numDraftTokens = 0 } = llm.stats().speculation ?? {};
    t.ok(numDraftTokens > 100 && numAcceptedTokens > 0.9 * numDraftTokens, `${numAcceptedTokens} of ${numDraftTokens} drafts stay`);
    t.ok(outputs.every((output) => output.outputs.every(({ tokenIds }) => tokenIds.every((id) => id < 2048))));
    await llm.close();
  }
});

test('draft models that do not fit are refused', async (t) => {
  const parent = t.testdir({});
  const other = join(parent, 'other');
  copyGoodModel(other);
  const tokenizer = readTokenizer(other);
  const { vocab } = tokenizer.model;
  const [one, two] = Object.entries(vocab).filter(([, id]) => id === 700 || id === 900) as [[string, number], [string, number]];
  [vocab[one[0]], vocab[two[0]]] = [two[1], one[1]];
  writeTokenizer(other, tokenizer);
  const expectRefusal = async (config: unknown, code: string, message: RegExp) => {
    await t.rejects(LLM.load(goodModel, { ...base, speculativeConfig: config as SpeculativeConfig }), { code, message }, String(message));
  };
  await expectRefusal({ model: other }, 'ERR_UNSUPPORTED', /tokenizer of .*story-180k, where token 700 is ".*", but received .*other/);
  await expectRefusal({ model: join(parent, 'none') }, 'ERR_MODEL_NOT_FOUND', /none/);
  await expectRefusal(
    { model: goodModel, draftTensorParallelSize: 2 },
    'ERR_USAGE',
    /1 for speculativeConfig.draftTensorParallelSize .* 2/,
  );
  await expectRefusal({ method: 'eagle' }, 'ERR_USAGE', /'draft_model', 'ngram', 'suffix' .*speculativeConfig.method .*"eagle"/);
  await expectRefusal({ numSpeculativeTokens: 3 }, 'ERR_USAGE', /speculativeConfig.method .* undefined/);
  await expectRefusal({ method: 'ngram', model: goodModel }, 'ERR_USAGE', /speculativeConfig.model/);
  // A failed load frees everything for the next.
  await using llm = await LLM.load(goodModel, { ...base, speculativeConfig: { model: otherModel, adaptiveK: false } });
  t.equal((await llm.generate(tale, { maxTokens: 3, ignoreEos: true })).tokenIds.length, 3);
});
