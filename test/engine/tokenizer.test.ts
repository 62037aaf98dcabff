/** `llm.tokenizer`: the same tokens and texts as those of prompts and outputs. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type ChatMessage, LLM } from '../../rank/index.ts';
import { copyGoodModel, editJson } from '../helpers/checkpoint-edits.ts';

const chatTemplate =
  "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}Once upon{% endif %}";
const dog: ChatMessage[] = [{ role: 'user', content: 'A dog' }];
const greedy = { temperature: 0, maxTokens: 12 };

const folder = mkdtempSync(join(tmpdir(), 'nds-tokenizer-'));
t.teardown(() => rmSync(folder, { recursive: true }));
copyGoodModel(folder);
editJson(folder, 'tokenizer_config.json', { chat_template: chatTemplate });
const llm = await LLM.load(folder, { dtype: 'float32', numThreads: 1 });
t.teardown(() => llm.close());
const { tokenizer } = llm;

t.test('encodes a text as a prompt, and decodes tokens as an output', async (t) => {
  const output = await llm.generate('Once upon a time', greedy);
  t.same(await tokenizer.encode('Once upon a time'), output.promptTokenIds);
  t.equal(await tokenizer.count('Once upon a time'), output.promptTokenIds.length);
  const ids = [...output.promptTokenIds, ...output.tokenIds];
  t.equal(tokenizer.decode(ids), `Once upon a time${output.text}`);
  t.equal(tokenizer.decode(Int32Array.from(ids)), tokenizer.decode(ids));
  const long = 'The cat sat on the mat. '.repeat(400);
  t.equal(tokenizer.decode(await tokenizer.encode(long)), long, 'a text that a thread encodes, longer than the context');
  t.same(await tokenizer.encode(''), []);
  t.equal(tokenizer.decode([]), '');
});

t.test('special tokens are read as themselves, and hidden or shown', async (t) => {
  const ids = await tokenizer.encode('The end.<|endoftext|>');
  t.equal(ids.at(-1), tokenizer.eosTokenId);
  t.equal(tokenizer.decode(ids), 'The end.');
  t.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), 'The end.<|endoftext|>');
  t.equal(tokenizer.specialTokens['eos_token'], '<|endoftext|>');
  const { added_tokens, model } = JSON.parse(readFileSync(join(folder, 'tokenizer.json'), 'utf8'));
  const allIds = [...added_tokens.map(({ id }: { id: number }) => id), ...Object.values<number>(model.vocab)];
  t.equal(tokenizer.vocabSize, Math.max(...allIds) + 1);
});

t.test('writes a conversation as chat does, as text and as tokens', async (t) => {
  const { prompt, promptTokenIds } = await llm.chat(dog, greedy);
  t.equal(await tokenizer.applyChatTemplate(dog), prompt);
  t.same(await tokenizer.applyChatTemplate(dog, { tokenize: true }), promptTokenIds);
  t.equal(await tokenizer.applyChatTemplate(dog, { addGenerationPrompt: false }), 'A dog\n');
});

t.test('refuses what it cannot read', async (t) => {
  const bad = { code: 'ERR_REQUEST' };
  await t.rejects(tokenizer.encode(7 as never), { ...bad, message: /Expected a string for the text/ });
  await t.rejects(tokenizer.encode('\ud800'), { ...bad, message: /lone surrogate/ });
  await t.rejects(tokenizer.encode('a', { skipSpecialTokens: true } as never), { ...bad, message: /addSpecialTokens/ });
  await t.rejects(tokenizer.encode('a', null as never), bad);
  t.throws(() => tokenizer.decode('a' as never), { ...bad, message: /an array of token ids for tokenIds/ });
  t.throws(() => tokenizer.decode([1, 2048]), { ...bad, message: /from 0 to 2047 for tokenIds\[1\]/ });
  t.throws(() => tokenizer.decode([1], { skipSpecialTokens: 1 } as never), { ...bad, message: /true or false for skipSpecialTokens/ });
  await t.rejects(tokenizer.applyChatTemplate(dog, { tokenize: 'yes' } as never), { ...bad, message: /for tokenize/ });
  await t.rejects(tokenizer.applyChatTemplate(dog, null as never), bad);
  await t.rejects(tokenizer.applyChatTemplate([]), bad);
});

t.test('is closed with its LLM', async (t) => {
  await llm.close();
  const closed = { code: 'ERR_CLOSED' };
  await t.rejects(tokenizer.encode('a'), closed);
  await t.rejects(tokenizer.count('a'), closed);
  await t.rejects(tokenizer.applyChatTemplate(dog), closed);
  t.throws(() => tokenizer.decode([1]), closed);
  t.throws(() => tokenizer.vocabSize, closed);
});

t.test('a model without a tokenizer says so', async (t) => {
  const bare = mkdtempSync(join(tmpdir(), 'nds-bare-'));
  t.teardown(() => rmSync(bare, { recursive: true }));
  copyGoodModel(bare);
  rmSync(join(bare, 'tokenizer.json'));
  const llm = await LLM.load(bare, { dtype: 'float32', numThreads: 1 });
  t.teardown(() => llm.close());
  await t.rejects(llm.tokenizer.encode('a'), { code: 'ERR_TOKENIZER', message: /tokenizer.json/ });
  t.throws(() => llm.tokenizer.decode([1]), { code: 'ERR_TOKENIZER' });
});
