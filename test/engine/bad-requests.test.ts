/** A bad request is refused by name and affects no other; a bad option fails the load, and the next load works. */
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import type { NdsErrorCode } from '../../protocol/errors.ts';
import { LLM, type LLMOptions, type Prompt, type SamplingParams } from '../../rank/index.ts';
import { badModels, writeBadModel } from '../helpers/bad-models.ts';
import { goodModel } from '../helpers/checkpoint-edits.ts';
import { goldenPath } from '../helpers/goldens.ts';

const vocabSize = 2048;
const contextLength = 1024;

/** An arbitrary value, as an untyped caller passes it. */
function untyped<T>(value: unknown): T {
  return value as T;
}

const badParams: [unknown, RegExp][] = [
  [{ maxTokens: 0 }, /maxTokens .* 0/],
  [{ maxTokens: -1 }, /maxTokens .* -1/],
  [{ maxTokens: 1.5 }, /maxTokens .* 1\.5/],
  [{ maxTokens: Number.POSITIVE_INFINITY }, /maxTokens .* Infinity/],
  [{ temperature: -0.1 }, /temperature .* -0\.1/],
  [{ temperature: Number.NaN }, /temperature .* NaN/],
  [{ temperature: Number.POSITIVE_INFINITY }, /temperature .* Infinity/],
  [{ temperature: '1' }, /temperature .* "1"/],
  [{ temperature: null }, /temperature .* null/],
  [{ topP: 0 }, /topP .* 0/],
  [{ topP: 1.01 }, /topP .* 1\.01/],
  [{ topP: Number.NaN }, /topP .* NaN/],
  [{ minP: -0.01 }, /minP .* -0\.01/],
  [{ minP: 2 }, /minP .* 2/],
  [{ topK: -2 }, /topK .* -2/],
  [{ topK: 2.5 }, /topK .* 2\.5/],
  [{ topK: 2 ** 31 }, /topK .* 2147483648/],
  [{ seed: -1 }, /seed .* -1/],
  [{ seed: 0.5 }, /seed .* 0\.5/],
  [{ seed: 2 ** 53 }, /seed .* 9007199254740992/],
  [{ seed: 2n ** 64n }, /seed .* 18446744073709551616n/],
  [{ stop: '' }, /stop .* ""/],
  [{ stop: ['ok', ''] }, /stop .* \["ok",""\]/],
  [{ stop: ['\ud800'] }, /stop .*\\ud800/],
  [{ stop: 7 }, /stop .* 7/],
  [{ ignoreEos: 'no' }, /ignoreEos .* "no"/],
  [{ max_tokens: 5 }, /maxTokens.* 'max_tokens'/],
  [{ bestOf: 2 }, /'bestOf'/],
  ['greedy', /sampling parameters .* "greedy"/],
  [null, /sampling parameters .* null/],
];

const badPrompts: [unknown, RegExp][] = [
  ['', /prompt .* empty/],
  ['lone \ud83d surrogate', /lone surrogate U\+D83D at index 5/],
  ['Once upon a time '.repeat(contextLength), /at most 1023 tokens .*maxModelLen/],
  ['x'.repeat(10_000_000), /at most 1023 tokens .* 10000000 characters/],
  [{ promptTokenIds: [] }, /at least one token/],
  [{ promptTokenIds: new Array(contextLength + 1).fill(1) }, /at most 1023 tokens .* 1025 tokens/],
  [{ promptTokenIds: [1, vocabSize] }, /promptTokenIds\[1\] .* 2048/],
  [{ promptTokenIds: [-1] }, /promptTokenIds\[0\] .* -1/],
  [{ promptTokenIds: [1, 2, 0.5] }, /promptTokenIds\[2\] .* 0\.5/],
  [{ promptTokenIds: ['1'] }, /promptTokenIds\[0\] .* "1"/],
  [{ promptTokenIds: 5 }, /promptTokenIds .* 5/],
  [{ promptTokenIds: new Float32Array([1]) }, /promptTokenIds/],
  [{ promptTokenIds: [1], text: 'x' }, /'text'/],
  [{ tokens: [1] }, /\{ promptTokenIds \}/],
  [null, /prompt .* null/],
  [42, /prompt .* 42/],
];

async function rejects(t: Test, attempt: Promise<unknown>, code: NdsErrorCode, message: RegExp): Promise<void> {
  await t.rejects(attempt, { name: 'NdsError', code, message }, `${code} ${message}`);
}

test('bad requests', async (t) => {
  const llm = await LLM.load(goodModel, { dtype: 'float32', numThreads: 1 });
  t.teardown(() => llm.close());
  const good: [Prompt, SamplingParams] = ['Once upon a time', { temperature: 0, maxTokens: 20 }];
  const { tokenIds: expected } = await llm.generate(...good);
  const underWay = llm.generate(['Once', 'Tom'], { maxTokens: 300, ignoreEos: true });
  for (const [params, message] of badParams) await rejects(t, llm.generate('hi', untyped<SamplingParams>(params)), 'ERR_REQUEST', message);
  for (const [prompt, message] of badPrompts) {
    await rejects(t, llm.generate(untyped<string>(prompt)), 'ERR_REQUEST', message);
    await rejects(t, llm.stream(untyped<Prompt>(prompt)).next(), 'ERR_REQUEST', message);
  }
  await rejects(t, llm.generate(['fine', untyped<string>('')]), 'ERR_REQUEST', /empty/);
  await rejects(t, llm.generate(['a', 'b'], [{}, { minP: 3 }]), 'ERR_REQUEST', /minP .* 3/);
  await rejects(t, llm.generate(['a', 'b'], [{}]), 'ERR_REQUEST', /2 sampling parameters, .* 1/);
  await rejects(t, llm.generate(new Array<Prompt>(1)), 'ERR_REQUEST', /prompt .* undefined/);
  for (const ids of [[], [vocabSize], [-1]]) await rejects(t, llm.computeLogits(ids), 'ERR_REQUEST', /prompt/i);
  t.same(
    (await underWay).map((output) => output.tokenIds.length),
    [300, 300],
    'requests under way went on',
  );
  t.same((await llm.generate(...good)).tokenIds, expected, 'and later ones are answered as before');
  await llm.close();
  await rejects(t, llm.generate('hi'), 'ERR_CLOSED', /./);
});

test('a prompt that fits the context but not all KV blocks together', async (t) => {
  // Two blocks of 32 tokens: K and V of one head of 32, in float32.
  const llm = await LLM.load(goodModel, { dtype: 'float32', numThreads: 1, kvCacheMemoryBytes: 2 * 32 * 2 * 32 * 4 });
  t.teardown(() => llm.close());
  await rejects(
    t,
    llm.generate({ promptTokenIds: new Array(100).fill(300) }),
    'ERR_REQUEST',
    /at most 64 tokens \(all KV blocks; .* 100 tokens/,
  );
  const output = await llm.generate({ promptTokenIds: new Array(40).fill(300) }, { maxTokens: 10, temperature: 0, ignoreEos: true });
  t.equal(output.tokenIds.length, 10);
});

test('a token that stands for an image', async (t) => {
  const llm = await LLM.load(goldenPath('qwen2-vl-bf16'), { dtype: 'float32', numThreads: 1 });
  t.teardown(() => llm.close());
  t.match(llm.skippedTensors, [{ prefix: 'visual.', numTensors: Number }]);
  await rejects(t, llm.generate({ promptTokenIds: [20, 150, 30] }), 'ERR_REQUEST', /without image_token_id, .*150/);
  await rejects(t, llm.generate({ promptTokenIds: [151] }), 'ERR_REQUEST', /without video_token_id, .*151/);
  t.equal((await llm.generate({ promptTokenIds: [20, 149] }, { maxTokens: 2, ignoreEos: true })).tokenIds.length, 2);
});

test('bad options', async (t) => {
  const cases: [unknown, NdsErrorCode, RegExp][] = [
    [{ dtype: 'float8' }, 'ERR_USAGE', /dtype .* "float8"/],
    [{ device: 'tpu' }, 'ERR_UNSUPPORTED', /device .* "tpu"/],
    [{ blockSize: 31 }, 'ERR_USAGE', /blockSize .* 31/],
    [{ blockSize: 48 }, 'ERR_USAGE', /blockSize .* 48/],
    [{ maxModelLen: 0 }, 'ERR_USAGE', /maxModelLen .* 0/],
    [{ maxModelLen: contextLength + 1 }, 'ERR_USAGE', /1024.* maxModelLen .* 1025/],
    [{ maxNumSeqs: 8, maxNumBatchedTokens: 4 }, 'ERR_USAGE', /maxNumBatchedTokens .* 4/],
    [{ kvCacheMemoryBytes: 100 }, 'ERR_USAGE', /kvCacheMemoryBytes .* 100/],
    [{ numThreads: -1 }, 'ERR_USAGE', /numThreads .* -1/],
    [{ max_model_len: 5 }, 'ERR_USAGE', /'max_model_len'/],
    [7, 'ERR_USAGE', /load options .* 7/],
  ];
  for (const [options, code, message] of cases) await rejects(t, LLM.load(goodModel, untyped<LLMOptions>(options)), code, message);
  await rejects(t, LLM.load(''), 'ERR_USAGE', /model folder/);
  await rejects(t, LLM.load(untyped<string>(undefined)), 'ERR_USAGE', /model folder.* undefined/);
});

test('a bad model is refused, and a good one loads after it', async (t) => {
  const parent = t.testdir({});
  for (const name of ['truncated data', 'an unknown tensor', 'no hidden_size']) {
    const bad = badModels.find((model) => model.name === name);
    t.ok(bad, name);
    if (bad === undefined) continue;
    writeBadModel(bad, join(parent, name));
    await rejects(t, LLM.load(join(parent, name)), bad.code, bad.names);
  }
  cpSync(goodModel, join(parent, 'tokenizer'), { recursive: true });
  writeFileSync(join(parent, 'tokenizer', 'tokenizer.json'), '{');
  await rejects(t, LLM.load(join(parent, 'tokenizer')), 'ERR_TOKENIZER', /tokenizer\.json/);
  await (await LLM.load(goodModel)).close();
});

test('a model without a tokenizer takes and gives token ids, and refuses text', async (t) => {
  const folder = join(t.testdir({}), 'ids-only');
  cpSync(goodModel, folder, { recursive: true });
  rmSync(join(folder, 'tokenizer.json'));
  const llm = await LLM.load(folder);
  t.teardown(() => llm.close());
  const output = await llm.generate({ promptTokenIds: [484, 485, 259, 445] }, { temperature: 0, maxTokens: 5 });
  t.equal(output.tokenIds.length, 5);
  t.equal(output.text, '');
  await rejects(t, llm.generate('text'), 'ERR_TOKENIZER', /ids-only\/tokenizer\.json/);
  await rejects(t, llm.generate({ promptTokenIds: [1] }, { stop: 'x' }), 'ERR_REQUEST', /stop/);
});
