/** `llm.chat` on a small real model with an added chat template. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type ChatMessage, LLM, type StreamChunk } from '../../rank/index.ts';
import { copyGoodModel, editJson } from '../helpers/checkpoint-edits.ts';

const options = { dtype: 'float32', numThreads: 1 } as const;
const greedy = { temperature: 0, maxTokens: 12 };
const chatTemplate =
  "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}Once upon{% endif %}";
const dog: ChatMessage[] = [{ role: 'user', content: 'A dog' }];

t.test('a model with a chat template', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nds-chat-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  copyGoodModel(folder);
  editJson(folder, 'tokenizer_config.json', { chat_template: chatTemplate });
  const llm = await LLM.load(folder, options);
  t.teardown(() => llm.close());

  await t.test('answers a conversation as the text that its template makes of it', async (t) => {
    const chat = await llm.chat(dog, greedy);
    t.equal(chat.prompt, 'A dog\nOnce upon');
    t.same(chat, await llm.generate('A dog\nOnce upon', { ...greedy, seed: chat.seed }));
    const answered: ChatMessage[] = [
      ...dog,
      { role: 'assistant', content: 'ran.' },
      { role: 'user', content: [{ type: 'text', text: 'And?' }] },
    ];
    const { prompt, promptTokenIds } = await llm.chat(answered, greedy);
    t.equal(prompt, 'A dog\nran.<|endoftext|>And?\nOnce upon');
    t.equal(promptTokenIds.filter((id) => id === 0).length, 1, 'a special token of the template is one');
  });

  await t.test('answers several in one batch, in their order', async (t) => {
    const conversations: ChatMessage[][] = [dog, [{ role: 'user', content: 'A cat' }]];
    const outputs = await llm.chat(conversations, [greedy, { ...greedy, maxTokens: 3 }]);
    t.same(
      outputs.map(({ prompt, tokenIds }) => [prompt, tokenIds.length]),
      [
        ['A dog\nOnce upon', 12],
        ['A cat\nOnce upon', 3],
      ],
    );
    t.same(outputs[0]?.tokenIds, (await llm.chat(dog, greedy)).tokenIds);
  });

  await t.test('streams an answer', async (t) => {
    const chunks: StreamChunk[] = [];
    for await (const chunk of llm.streamChat(dog, greedy)) chunks.push(chunk);
    t.equal(chunks.map(({ text }) => text).join(''), (await llm.chat(dog, greedy)).text);
  });

  await t.test('takes a template, and continues a message', async (t) => {
    const own = { chatTemplate: '{{ messages[0].content }}{{ end }}', chatTemplateKwargs: { end: '!' } };
    t.equal((await llm.chat(dog, greedy, own)).prompt, 'A dog!');
    t.equal((await llm.chat([{ role: 'assistant', content: 'One day' }], greedy, { continueFinalMessage: true })).prompt, 'One day');
  });

  await t.test('refuses what is wrong and goes on', async (t) => {
    await t.rejects(llm.chat([], greedy), { code: 'ERR_REQUEST', message: /at least one message/ });
    await t.rejects(llm.chat([dog, [{ role: '', content: 'x' }]], greedy), { code: 'ERR_REQUEST', message: /messages\[0\]\.role/ });
    await t.rejects(llm.chat(dog, greedy, { chatTemplate: '{{ raise_exception("no") }}' }), { code: 'ERR_REQUEST', message: /no$/ });
    await t.rejects(llm.chat(dog, greedy, { chatTemplate: '{{ "" }}' }), { code: 'ERR_REQUEST', message: /an empty string/ });
    await t.rejects(llm.chat(dog, { ...greedy, maxTokens: 0 }), { code: 'ERR_REQUEST', message: /maxTokens/ });
    await t.rejects(llm.streamChat([], greedy).next(), { code: 'ERR_REQUEST' });
    t.equal((await llm.chat(dog, greedy)).tokenIds.length, 12);
  });

  await t.test('is closed with chats under way', async (t) => {
    const underWay = llm.chat(dog, { maxTokens: 900, ignoreEos: true });
    const rejected = t.rejects(underWay, { code: 'ERR_CLOSED' });
    await llm.close();
    await rejected;
    await t.rejects(llm.chat(dog), { code: 'ERR_CLOSED' });
  });
});

t.test('a base-model-like folder, without a template', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nds-chat-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  copyGoodModel(folder);
  await using llm = await LLM.load(folder, options);
  await t.rejects(llm.chat(dog), { code: 'ERR_REQUEST', message: /given as chatTemplate, but received a model without one/ });
  t.equal((await llm.chat(dog, greedy, { chatTemplate })).prompt, 'A dog\nOnce upon');
});

t.test('a template file wins, and a broken file is named at load', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nds-chat-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  copyGoodModel(folder);
  editJson(folder, 'tokenizer_config.json', { chat_template: 5 });
  await t.rejects(LLM.load(folder, options), { code: 'ERR_TOKENIZER', message: /chat_template for .*tokenizer_config\.json/ });
  writeFileSync(join(folder, 'chat_template.jinja'), 'The {{ messages[0].content }}');
  await using llm = await LLM.load(folder, options);
  t.equal((await llm.chat(dog, greedy)).prompt, 'The A dog');
});

t.test("a model's generation_config.json stands in for parameters that are left out, unless told otherwise", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nds-chat-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  copyGoodModel(folder);
  editJson(folder, 'generation_config.json', { temperature: 0, top_k: 5, max_new_tokens: 7 });
  {
    await using llm = await LLM.load(folder, options);
    t.same(llm.defaultSamplingParams, { temperature: 0, topK: 5, maxTokens: 7 });
    const [first, second, longer] = await llm.generate(['One day', 'One day', 'One day'], [{}, {}, { maxTokens: 9 }]);
    t.equal(first?.tokenIds.length, 7);
    t.same(first?.tokenIds, second?.tokenIds, 'greedy');
    t.same(longer?.tokenIds.slice(0, 7), first?.tokenIds, 'an explicit parameter wins, the others stay');
    t.equal(longer?.tokenIds.length, 9);
  }
  await using llm = await LLM.load(folder, { ...options, generationConfig: 'none' });
  t.same(llm.defaultSamplingParams, {});
  t.equal((await llm.generate('One day', { ignoreEos: true })).tokenIds.length, 16);
});
