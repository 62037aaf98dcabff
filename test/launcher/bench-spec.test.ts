/** Speculative decoding on the command line: `ndsrun bench spec`, `--speculative-config`, and the example. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { benchSpec } from '../../bin/commands/bench-spec.ts';
import { ndsrun } from '../helpers/launcher.ts';

const path = (name: string) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const [model, target] = [path('models/story-180k'), path('models/story-5m')];
const command = ['bench', 'spec', '--nproc-per-node=1'];
const small = ['--max-tokens=8', '--rounds=1', '--batch-sizes=1,2', '--num-threads=1'];

t.test('a draft model that is the target is always right', async (t) => {
  const { code, stdout, stderr } = await ndsrun([
    ...command,
    ...small,
    '--target',
    model,
    '--draft',
    model,
    '--k=2',
    '--temperature=0,1',
    '--json',
  ]);
  t.equal(code, 0, stderr);
  const report = JSON.parse(stdout) as { results: { k: number | null; rule: string; temperature: number; batch_size: number }[] };
  t.match(report, {
    target: { path: model, num_ranks: 1 },
    method: 'draft_model',
    draft: model,
    max_tokens: 8,
    rounds: 1,
    identical_tokens: true,
  });
  t.same(
    report.results.map(({ rule, k, temperature, batch_size }) => [rule, k, temperature, batch_size].join()),
    ['coupled', 'standard', 'block'].flatMap((rule) =>
      ['2', ''].flatMap((k) => ['0,1', '0,2', '1,1', '1,2'].map((where) => `${rule},${k},${where}`)),
    ),
  );
  for (const result of report.results.filter(({ k }) => k !== null)) {
    const { rule, temperature } = result;
    // 7 tokens after the first: steps of 2 drafts yield 3, 3 and 1.
    const expected = {
      acceptance_rate: 1,
      acceptance_rate_per_pos: [1, 1],
      tokens_per_step: 7 / 3,
      speedup: Number,
      plain_tokens_per_second: Number,
    };
    t.match(result, { ...expected, identical_tokens: rule === 'coupled' ? true : null }, `${rule}, temperature ${temperature}`);
  }
});

t.test('tables, on two ranks, with drafts from a text', async (t) => {
  const folder = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(folder, { recursive: true }));
  const prompt = join(folder, 'prompt.txt');
  writeFileSync(prompt, 'The cat sat. The dog sat. The cat sat. The dog sat. The cat');
  for (const options of [['--method=ngram', '--prompt', prompt], ['--method=suffix']]) {
    const rules = ['--rejection-sample-method=coupled', '--k=3', '--temperature=0'];
    const { code, stdout, stderr } = await ndsrun([
      'bench',
      'spec',
      '--nproc-per-node=2',
      ...small,
      ...rules,
      '--target',
      model,
      ...options,
    ]);
    t.equal(code, 0, stderr);
    t.match(stdout, /\(\w+, 2 ranks\), drafts from (ngram|suffix)$/m);
    t.match(stdout, /^temperature 0; plain decoding, in tokens\/s: \d+ at batch 1, \d+ at batch 2$/m);
    t.match(stdout, /^coupled +3 +[\d.]+x +[\d.]+ +[\d.]+x +[\d.]+ /m);
    t.match(stdout, /^coupled +adaptive /m);
    t.match(stdout, /^coupled: tokens are identical with and without speculation$/m);
  }
});

t.test('what bench spec refuses, and its help', async (t) => {
  t.match((await ndsrun(['bench', 'spec', '--help'])).stdout, /Usage: ndsrun bench spec .*--target MODEL/);
  const refused: [string[], RegExp][] = [
    [['--draft', model], /Expected --target MODEL but received none/],
    [['--target', model], /Expected --draft MODEL with --method draft_model but received none/],
    [['--target', model, '--draft', model, '--method=ngram'], /Expected no --draft with --method ngram/],
    [['--target', model, '--draft', model, '--k=1,33'], /Expected an integer from 1 to 32 for --k but received "33"/],
    [['--target', model, '--draft', model, '--rejection-sample-method=coupled,strict'], /Expected coupled, standard, block .*"strict"/],
    [['--target', model, '--method=medusa'], /Expected draft_model, ngram, suffix for --method/],
    [['--target', model, '--method=ngram', '--prompt=/no/such/file'], /Expected a file for --prompt but \/no\/such\/file/],
    [[model, '--target', model, '--draft', model], /Expected options only/],
  ];
  for (const [args, message] of refused) await t.rejects(benchSpec(args), { message, exitCode: 64 }, args.join(' '));
  const tooLong = await ndsrun([...command, '--target', model, '--method=ngram', '--max-tokens=5000']);
  t.match(tooLong, { code: 64, stdout: '', stderr: /at most \d+ for --max-tokens .* received 5000/ });
});

t.test('generate and bench with --speculative-config', async (t) => {
  const config = JSON.stringify({ model, num_speculative_tokens: 3, adaptive_k: false });
  const options = ['--nproc-per-node=1', '--max-tokens=24', '--temperature=0.7', '--seed=1'];
  const plain = await ndsrun(['generate', ...options, '--quiet', target, 'Once upon a time']);
  const text = await ndsrun(['generate', ...options, '--speculative-config', config, target, 'Once upon a time']);
  t.equal(text.stdout, plain.stdout, 'the same text');
  t.match(text.stderr, /tokens\/s; mean acceptance length [1-4]\.\d\d, \d+ of \d+ drafts accepted\nthe text was cut.*\n$/);
  const json = await ndsrun(['generate', ...options, '--json', '--quiet', '--speculative-config', config, target, 'Once upon a time']);
  t.match(JSON.parse(json.stdout), {
    speculation: { num_drafts: Number, num_accepted_tokens_per_pos: Array, mean_acceptance_length: Number },
  });
  const bad = await ndsrun(['generate', '--speculative-config', '{"modl": "x"}', target, 'Once']);
  t.match(bad, { code: 64, stderr: /received "modl" \(did you mean model\?\)/ });

  const sizes = ['--max-tokens=8', '--warmups=1', '--rounds=1', '--batch-sizes=1', '--prompt-len=8'];
  const bench = await ndsrun(['bench', '--nproc-per-node=1', ...sizes, '--json', '--speculative-config', config, target]);
  t.match(JSON.parse(bench.stdout), {
    speculation: { num_drafts: Number },
    records: [{ name: 'pp8' }, { name: 'tg8', limits: [] }],
  });
});

t.test('the example, on two ranks', async (t) => {
  const run = (env: Record<string, string>) => ndsrun(['--nproc-per-node=2', path('speculative.ts')], { env });
  const { code, stdout, stderr } = await run({ FORCE_COLOR: '0', NO_COLOR: '' });
  t.equal(code, 0, stderr);
  t.match(stdout, /Once upon a time/);
  for (let position = 1; position <= 5; position++) t.match(stdout, new RegExp(`^\\[rank 0\\] +${position} +\\d+ +\\d+ %$`, 'm'));
  t.match(stdout, /times as fast$/m);
  t.match(stdout, /all \d+ tokens are identical with drafts and without/);
  t.notMatch(stdout, '\x1b');
  const story = stdout.slice(0, stdout.indexOf('position'));
  const colored = (await run({ FORCE_COLOR: '1', NO_COLOR: '' })).stdout;
  t.match(colored, '\x1b[32m');
  t.equal(colored.replaceAll('\x1b[32m', '').replaceAll('\x1b[39m', '').slice(0, story.length), story, 'the same story in colour');
  t.notMatch((await run({ FORCE_COLOR: '1', NO_COLOR: '1' })).stdout, '\x1b');
});
