/** `ndsrun bench` and its commands on the command line: one record for all, in every output; what is refused; interruptions. */
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { checkHtml, checkMarkdown, checkRecords } from '../helpers/bench-output.ts';
import { ndsrun, Running } from '../helpers/launcher.ts';
import { describeProcesses, leftAfter, markedProcesses, newMark } from '../helpers/leaks.ts';

const path = (name: string) => fileURLToPath(new URL(`../../examples/models/${name}`, import.meta.url));
const [tiny, small] = [path('story-180k'), path('story-5m')];
const sizes = ['--prompt-len=16', '--warmups=1', '--rounds=2', '--num-threads=1', '--quiet'];
const few = [...sizes, '--max-tokens=4', '--nproc-per-node=1'];
const onTwo = [...sizes, '--max-tokens=4', '--nproc-per-node=2'];

function makeFolder(t: { teardown(handler: () => void): unknown }): string {
  const folder = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

t.test('latency: JSON and a page', async (t) => {
  const page = join(makeFolder(t), 'page.html');
  const { code, stdout, stderr } = await ndsrun(['bench', 'latency', ...few, '--depth=0,64', '--json', '--html', page, tiny]);
  t.equal(code, 0, stderr);
  const records = checkRecords(stdout);
  t.same(
    records.map(({ name, command }) => [name, command].join()),
    ['pp16,latency', 'tg4,latency', 'pp16 @ d64,latency', 'tg4 @ d64,latency'],
  );
  for (const { name, limits, num_warmups, num_rounds, value } of records) {
    t.equal(num_warmups, 1);
    t.equal(num_rounds, 2);
    t.ok(value.median > 0, name);
    t.same(
      limits.map(({ kind }) => kind),
      name.startsWith('pp') ? ['arithmetic'] : ['bandwidth', 'arithmetic'],
    );
  }
  t.ok((records[3]?.limits[0]?.per_token ?? 0) > (records[1]?.limits[0]?.per_token ?? 0), 'KV at depth is read too');
  checkHtml(readFileSync(page, 'utf8'));
});

t.test('throughput: Markdown, on two ranks', async (t) => {
  const args = ['bench', 'throughput', ...onTwo, '--batch-sizes=1,2,4', '--markdown', small];
  const { code, stdout, stderr } = await ndsrun(args);
  t.equal(code, 0, stderr);
  t.same(
    checkMarkdown(stdout).map(([name]) => name),
    ['', 'pp16', 'tg4', 'tg4, batch 2', 'tg4, batch 4'],
  );
  t.match(stdout, '2 ranks of 1 thread; medians of 2 rounds after 1 warm-up');
});

t.test('a table for a model, with drafts or without', async (t) => {
  const plain = await ndsrun(['bench', ...few, '--batch-sizes=1,2', small]);
  t.equal(plain.code, 0, plain.stderr);
  t.match(plain.stdout, /^nano-dist-spec .*\n.* cores, .*\n.*story-5m: bfloat16 weights of 11/);
  t.match(plain.stdout, /^tg4, batch 2 +[\d.,]+ +tokens\/s +.*GB\/s +.*GFLOP\/s$/m);
  const quantized = await ndsrun(['bench', ...few, '--batch-sizes=1', '--quantization=int8', small]);
  t.match(quantized.stdout, /^pp16 +[\d.,]+ +tokens\/s +[^/]*GOP\/s$/m, 'of the peak of operations on bytes');
  t.match(quantized.stdout, /^tg4 +[\d.,]+ +tokens\/s +.*GB\/s +.*GOP\/s$/m);
  const drafted = await ndsrun(['bench', ...few, '--batch-sizes=1', '--speculative-config={"method":"ngram"}', small]);
  t.match(drafted.stdout, /^tg4 +[\d.,]+ +tokens\/s +\S+$/m, 'no share of a limit');
});

t.test('random weights of a shape', async (t) => {
  const args = ['bench', 'latency', ...onTwo, '--shape=story-5m', '--json'];
  const { code, stdout, stderr } = await ndsrun(args);
  t.equal(code, 0, stderr);
  const [record] = checkRecords(stdout);
  t.match(record, { num_ranks: 2, model: { name: 'story-5m', is_synthetic: true, num_parameters: 5_242_880 } });
});

t.test('comm', async (t) => {
  const args = ['bench', 'comm', '--nproc-per-node=3', '--calls=3', '--rounds=2', '--bytes=4,4096,100000', '--json'];
  const { code, stdout, stderr } = await ndsrun(args);
  t.equal(code, 0, stderr);
  const records = checkRecords(stdout);
  t.same(records.map(({ unit }) => unit).sort(), [...Array(6).fill('GB/s'), ...Array(6).fill('µs')]);
  const [first] = records;
  t.match(first, { name: 'all-reduce 4 B', command: 'comm', num_ranks: 3, model: null, details: { bytes: 4, num_calls: 3 } });
});

t.test('spec and kv-utilization have the same records', async (t) => {
  const page = join(makeFolder(t), 'page.html');
  const spec = ['bench', 'spec', '--nproc-per-node=1', '--num-threads=1', '--max-tokens=4', '--rounds=1', '--batch-sizes=1', '--k=2'];
  const { stdout, stderr } = await ndsrun([...spec, '--method=ngram', '--temperature=0', '--target', tiny, '--json', '--html', page]);
  const records = checkRecords(stdout);
  t.equal(records.length, 6, stderr);
  t.match(records[0], { command: 'spec', unit: 'x', details: { rule: 'coupled', k: 2, draft: 'ngram' } });
  checkHtml(readFileSync(page, 'utf8'));
  const kv = ['bench', 'kv-utilization', '--num-requests=5', '--max-len=20', '--min-len=5'];
  t.match(checkRecords((await ndsrun([...kv, '--json'])).stdout)[0], { command: 'kv-utilization', unit: 'share' });
  t.equal(checkMarkdown((await ndsrun([...kv, '--markdown'])).stdout).length, 4);
});

t.test('what is refused', async (t) => {
  const refused: [string[], RegExp][] = [
    [['latency'], /Expected MODEL or --shape but received 0 operands/],
    [['latency', '--shape=qwen3-0.6b', small], /Expected MODEL or --shape but received .*story-5m and qwen3-0.6b/],
    [['throughput', '--shape=qwen-0.6b'], /Expected .* for --shape but received "qwen-0.6b" \(did you mean qwen3-0.6b\?\)/],
    [['latency', '--shape=story-5m', '--speculative-config={"method":"ngram"}'], /no --speculative-config with --shape/],
    [['latency', '--json', '--markdown', small], /--json or --markdown but received both/],
    [['latency', '--html=/no/such/folder/page.html', small], /a folder to write in for --html/],
    [['comm', '--nproc-per-node=1'], /at least 2 for --nproc-per-node but received 1/],
    [['comm', '--nproc-per-node=2', '--bytes=6'], /a multiple of 4 for --bytes but received 6/],
    [['spec', '--shape=story-5m', '--method=ngram'], /--shape/],
    [['latency', ...few, '--depth=8', tiny], /a multiple of the block size, 32, for --depth but received 8/],
    [
      ['latency', ...sizes, '--nproc-per-node=1', '--max-tokens=1000000', tiny],
      /at most \d+ for --max-tokens with this model but received 1000000/,
    ],
  ];
  for (const [args, message] of refused) {
    const { stdout, stderr, code } = await ndsrun(['bench', ...args]);
    t.match(stderr, message, args.join(' '));
    t.ok(code === 64 || code === 66, `${code}`);
    t.equal(stdout, '');
  }
});

t.test(
  'an interrupted or killed bench leaves no process and no weights',
  { skip: process.platform !== 'linux' && 'no /proc' },
  async (t) => {
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const [folder, mark] = [makeFolder(t), newMark()];
      const args = ['bench', 'throughput', '--shape=smollm2-135m', '--nproc-per-node=2', '--num-threads=1', '--rounds=1000', '--quiet'];
      const running = new Running(args, { env: { ...mark, TMPDIR: folder } });
      while (weightsIn(folder).length === 0) {
        if (running.child.exitCode !== null) throw new Error(`ended: ${running.stderr}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      t.ok(
        weightsIn(folder).every((name) => lstatSync(join(folder, name)).isSymbolicLink()),
        'weights have no name from the start',
      );
      running.child.kill(signal);
      await running.ended();
      t.same(await leftAfter(() => describeProcesses(markedProcesses(mark)), 60_000), [], signal);
      const bytes = readdirSync(folder, { recursive: true }).map((name) => lstatSync(join(folder, String(name))).size);
      t.ok(
        bytes.every((size) => size < 2 ** 20),
        'no large file',
      );
      if (signal === 'SIGINT')
        t.same(
          readdirSync(folder).filter((name) => name.startsWith('nds')),
          [],
        );
    }
  },
);

function weightsIn(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true }).map(String);
  return names.filter(
    (name) => name.endsWith('model.safetensors') && lstatSync(join(folder, name), { throwIfNoEntry: false }) !== undefined,
  );
}
