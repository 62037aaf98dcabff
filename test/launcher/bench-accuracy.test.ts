/** `ndsrun bench accuracy`: formats beside the model as stored. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { benchAccuracy } from '../../bin/commands/bench-accuracy.ts';
import { checkHtml, checkMarkdown, checkRecords, type JsonRecord } from '../helpers/bench-output.ts';
import { ndsrun } from '../helpers/launcher.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const command = ['bench', 'accuracy', model, '--num-threads=1', '--quiet'];

const folder = mkdtempSync('/tmp/t-');
t.teardown(() => rmSync(folder, { recursive: true }));
const text = join(folder, 'text.txt');
writeFileSync(text, 'Once upon a time, there was a little girl named Lily. She liked to play in the park with her dog.');

t.test('errors grow with fewer bits, on any number of ranks the same', async (t) => {
  const run = async (numRanks: number) => {
    const args = [...command, `--nproc-per-node=${numRanks}`, '--text', text, '--window=16', '--kv-cache-dtype=auto,int8', '--json'];
    const { code, stdout, stderr } = await ndsrun(args);
    t.equal(code, 0, stderr);
    return checkRecords(stdout);
  };
  const records = await run(1);
  const valuesOf = (some: readonly JsonRecord[]) => some.map(({ name, value }) => [name, value.median]);
  t.same(valuesOf(await run(2)), valuesOf(records));
  const medianOf = (name: string) => records.find((record) => record.name === name)?.value.median ?? Number.NaN;
  t.equal(records.filter(({ name }) => name.endsWith(': perplexity')).length, 5);
  t.ok(medianOf('int8: KL divergence') > 0);
  t.ok(medianOf('int4: KL divergence') > medianOf('int8: KL divergence'));
  t.ok(medianOf('int4: RMS error') > medianOf('int8: RMS error'));
  t.ok(medianOf('int8: RMS error') !== medianOf('int8, KV int8: RMS error'));
  t.ok(medianOf('int8: same top token') > 50);
});

t.test('table, Markdown and page', async (t) => {
  const small = [...command, '--nproc-per-node=1', '--text', text, '--max-tokens=12'];
  const page = join(folder, 'page.html');
  // The file of logits has no name, so that nothing is left of it.
  const table = await ndsrun([...small, '--formats=int8', '--html', page], { env: { TMPDIR: folder } });
  t.match(table.stdout, /11 tokens scored, in windows of up to 512\n\n +weights +perplexity .*\nbfloat16 \(reference\) .*\nint8 .* %/);
  t.same(
    readdirSync(folder).filter((name) => name.startsWith('nds-logits')),
    [],
  );
  checkHtml(readFileSync(page, 'utf8'));
  const { stdout } = await ndsrun([...small, '--formats=none', '--kv-cache-dtype=int8', '--markdown']);
  t.match(stdout, /bfloat16, KV int8: KL divergence/);
  for (const table of stdout.split('\n\n').filter((part) => part.startsWith('|'))) t.ok(checkMarkdown(table).length > 1);
});

t.test('what says nothing is refused', async (t) => {
  await t.rejects(benchAccuracy(['--shape=qwen3-0.6b']), { code: 'ERR_USAGE', message: /random weights says nothing/ });
  await t.rejects(benchAccuracy([model, '--formats=expand']), { code: 'ERR_USAGE', message: /a format or KV cache to compare/ });
  await t.rejects(benchAccuracy([model, '--formats=int5']), { code: 'ERR_USAGE', message: /none, expand, int8, int4/ });
  await t.rejects(benchAccuracy([model, '--text=/none/there']), { code: 'ERR_NOT_FOUND' });
  await t.rejects(benchAccuracy([]), { code: 'ERR_USAGE' });
  for (const [args, message] of [
    [['--window=100000'], /at most \d+ for --window/],
    [['--max-tokens=2', '--text', join(folder, 'short.txt')], /at least 2 tokens for --text/],
  ] as const) {
    writeFileSync(join(folder, 'short.txt'), 'a');
    const { code, stderr } = await ndsrun([...command, '--nproc-per-node=1', ...args]);
    t.equal(code, 64, stderr);
    t.match(stderr, message);
  }
});
