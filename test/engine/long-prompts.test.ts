/** Prompts so long that a thread encodes them, among short ones. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { LLM } from '../../rank/index.ts';

const story = join(import.meta.dirname, '../../examples/models/story-180k');
const folder = t.testdir({});
cpSync(story, folder, { recursive: true });
const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as object;
writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, max_position_embeddings: 8192 }));
const llm = await LLM.load(folder, { device: 'cpu' });
t.teardown(() => llm.close());

const long = 'Once upon a time there was a fox. '.repeat(150);
const params = { temperature: 0, maxTokens: 4, ignoreEos: true };

t.test('a long prompt is answered as its token ids are, alone, in a batch, in a stream and in a chat', async (t) => {
  const output = await llm.generate(long, params);
  t.equal(output.prompt, long);
  t.ok(long.length > 4096 && output.promptTokenIds.length > 1000);
  const { tokenIds } = await llm.generate({ promptTokenIds: output.promptTokenIds }, params);
  t.same(output.tokenIds, tokenIds);
  const [first, short] = await llm.generate([long, 'Once'], params);
  t.same(first?.tokenIds, tokenIds);
  t.same(short?.tokenIds, (await llm.generate('Once', params)).tokenIds);
  const streamed: number[] = [];
  for await (const chunk of llm.stream(long, params)) streamed.push(...chunk.tokenIds);
  t.same(streamed, tokenIds);
  const chat = await llm.chat([{ role: 'user', content: long }], params, { chatTemplate: '{{ messages[0].content }}' });
  t.same(chat.tokenIds, tokenIds);
});

t.test('a long prompt that is refused, alone or beside another, is refused as a short one', async (t) => {
  const refusal = { code: 'ERR_REQUEST', message: /at most 8191 tokens .* but received 20000 tokens/ };
  await t.rejects(llm.generate('x'.repeat(20_000), params), refusal);
  await t.rejects(llm.generate(['Once', 'x'.repeat(20_000)], params), refusal);
  await t.rejects(llm.generate(['x'.repeat(20_000), ''], params), { code: 'ERR_REQUEST', message: /empty string/ });
  await t.rejects(llm.stream('x'.repeat(20_000), params).next(), refusal);
  await t.rejects(llm.generate([long, 'Once'], [params, { ...params, maxTokens: 0 }]), { code: 'ERR_REQUEST', message: /maxTokens/ });
});

t.test('an abort counts while a long prompt is encoded', async (t) => {
  for (const call of [
    (signal: AbortSignal): Promise<unknown> => llm.generate(long, params, { signal }),
    (signal: AbortSignal): Promise<unknown> => llm.stream(long, params, { signal }).next(),
  ]) {
    const controller = new AbortController();
    const rejects = t.rejects(call(controller.signal), { code: 'ERR_ABORTED' });
    controller.abort();
    await rejects;
  }
  t.equal(llm.stats().numRunning, 0);
});

t.test('closing rejects a prompt that is being encoded', async (t) => {
  const rejects = t.rejects(llm.generate(long, params), { code: 'ERR_CLOSED' });
  await llm.close();
  await rejects;
  await t.rejects(llm.generate(long, params), { code: 'ERR_CLOSED' });
});
