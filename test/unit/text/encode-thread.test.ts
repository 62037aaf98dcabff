/** Long texts are encoded in a thread: with the same ids and errors, while everything else goes on. */
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { test } from 'tap';
import { Tokenizer } from '../../../rank/text/tokenizer.ts';

const story = join(import.meta.dirname, '../../../examples/models/story-180k');

test('a long text has the ids that it has without a thread, in the order of the calls', async (t) => {
  const tokenizer = (await Tokenizer.load(story)) as Tokenizer;
  t.teardown(() => tokenizer.close());
  const texts = ['Once upon a time. '.repeat(300), `${'a'.repeat(5000)}<|endoftext|>é🦊`, ' '.repeat(4096)];
  const jobs = texts.map((text) => tokenizer.encodeAsync(text));
  for (const [i, job] of jobs.entries()) {
    t.type(job, Promise);
    t.same(await job, tokenizer.encode(texts[i] as string), { diagnostic: false });
  }
  const short = 'Once upon a time';
  t.same(tokenizer.encodeAsync(short), tokenizer.encode(short), 'a short one has them at once');
});

test('the event loop turns while a long text is encoded', async (t) => {
  const tokenizer = (await Tokenizer.load(story)) as Tokenizer;
  t.teardown(() => tokenizer.close());
  let [numTurns, isDone] = [0, false];
  const job = Promise.resolve(tokenizer.encodeAsync('x'.repeat(200_000))).then((ids) => {
    isDone = true;
    return ids;
  });
  while (!isDone) {
    await setImmediate();
    numTurns++;
  }
  t.equal((await job).length, 200_000);
  t.ok(numTurns > 10, `${numTurns} turns`);
});

test('errors are those of a short text, and the thread goes on', async (t) => {
  const json = JSON.parse(await readFile(join(story, 'tokenizer.json'), 'utf8')) as { model: object };
  const folder = t.testdir({
    'tokenizer.json': JSON.stringify({ ...json, pre_tokenizer: null, model: { ...json.model, unk_token: '<none>' } }),
  });
  const tokenizer = (await Tokenizer.load(folder)) as Tokenizer;
  t.teardown(() => tokenizer.close());
  t.throws(() => tokenizer.encodeAsync(`${'x'.repeat(5000)}\ud800`), { code: 'ERR_REQUEST', message: /lone surrogate/ });
  const unknown = '🦊'.repeat(5000);
  t.throws(() => tokenizer.encode(unknown), { code: 'ERR_TOKENIZER', message: /unk_token/ });
  await t.rejects(Promise.resolve(tokenizer.encodeAsync(unknown)), { name: 'NdsError', code: 'ERR_TOKENIZER', message: /unk_token/ });
  t.equal((await tokenizer.encodeAsync('x'.repeat(5000))).length, 5000);
});

test('a folder that is broken by now is refused by name', async (t) => {
  const folder = t.testdir({ 'tokenizer.json': await readFile(join(story, 'tokenizer.json'), 'utf8') });
  const tokenizer = (await Tokenizer.load(folder)) as Tokenizer;
  t.teardown(() => tokenizer.close());
  await writeFile(join(folder, 'tokenizer.json'), '{');
  await t.rejects(Promise.resolve(tokenizer.encodeAsync('x'.repeat(5000))), { code: 'ERR_TOKENIZER', message: /Expected JSON/ });
});

test('closing ends what is under way and what comes later', async (t) => {
  const tokenizer = (await Tokenizer.load(story)) as Tokenizer;
  const job = t.rejects(Promise.resolve(tokenizer.encodeAsync('x'.repeat(100_000))), { code: 'ERR_CLOSED' });
  await Promise.all([tokenizer.close(), tokenizer.close()]);
  await job;
  await t.rejects(Promise.resolve(tokenizer.encodeAsync('x'.repeat(5000))), { code: 'ERR_CLOSED' });
});

test('a tokenizer that nobody closes keeps no process alive', async (t) => {
  const module = new URL('../../../rank/text/tokenizer.ts', import.meta.url).href;
  const script = `
    import { Tokenizer } from ${JSON.stringify(module)};
    const tokenizer = await Tokenizer.load(${JSON.stringify(story)});
    console.log((await tokenizer.encodeAsync('x'.repeat(5000))).length, (await tokenizer.encodeAsync('x'.repeat(6000))).length);
  `;
  const args = ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: t.testdir({}) });
  t.equal(stdout, '5000 6000\n');
});
