/** `npm run bench:peers` beside programs that print as llama.cpp's do: pairs, ratios and outputs; what is refused; interruption. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { packageRoot } from '../../protocol/package-root.ts';
import { checkMarkdown } from '../helpers/bench-output.ts';

const script = fileURLToPath(new URL('peers.ts', import.meta.url));

/** Answers with 100 tokens/s, after it has read the begin of the weights. */
const fake = `#!${process.execPath}
const { openSync, readSync, existsSync, writeFileSync } = require('node:fs');
const of = (name) => process.argv[process.argv.indexOf(name) + 1];
const magic = Buffer.alloc(4);
readSync(openSync(of('-m')), magic);
if (magic.toString() !== 'GGUF') throw new Error('no GGUF');
if (process.env.FAKE_FAILS) { console.error('out of luck'); process.exit(3); }
if (process.env.FAKE_WAITS) { writeFileSync(process.env.FAKE_WAITS, ''); setInterval(() => {}, 1000); }
else if (process.argv.includes('-npl')) {
  for (const pl of of('-npl').split(',')) console.log(JSON.stringify({ pp: +of('-npp'), tg: +of('-ntg'), pl: +pl, speed_tg: 100 }));
} else {
  const line = { build_commit: 'abc', build_number: 7, n_depth: process.argv.includes('-d') ? +of('-d') : 0, samples_ts: [50, 100, 900] };
  if (+of('-p') > 0) console.log(JSON.stringify({ ...line, n_prompt: +of('-p'), n_gen: 0 }));
  if (+of('-n') > 0) console.log(JSON.stringify({ ...line, n_prompt: 0, n_gen: +of('-n') }));
}
`;

function makeFolders(t: { teardown(handler: () => void): unknown }) {
  const folder = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const [programs, tmp] = [join(folder, 'bin'), join(folder, 'tmp')];
  mkdirSync(programs);
  mkdirSync(tmp);
  for (const name of ['llama-bench', 'llama-batched-bench']) {
    writeFileSync(join(programs, name), fake);
    chmodSync(join(programs, name), 0o755);
  }
  return { folder, programs, tmp };
}

function start(args: readonly string[], tmp: string, env: NodeJS.ProcessEnv = {}) {
  const { NODE_OPTIONS: _, ...inherited } = process.env;
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], {
    cwd: packageRoot(),
    env: { ...inherited, TMPDIR: tmp, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, stdout, stderr }));
  return { child, ended };
}

const left = (tmp: string) => readdirSync(tmp).filter((name) => name.startsWith('nds'));
const few = ['--shapes=story-5m', '--threads=1', '--max-tokens=4', '--repeats=1', '--quiet'];
const small = [...few, '--prompt-len=16', '--depth=32', '--batch-sizes=2'];

t.test('pairs, ratios and shares', async (t) => {
  const { programs, tmp } = makeFolders(t);
  const { code, stdout, stderr } = await start([...small, '--formats=int4', '--rounds=2', '--llama-cpp', programs, '--json'], tmp).ended;
  t.equal(code, 0, stderr);
  const { comparisons } = JSON.parse(stdout);
  t.same(
    comparisons.map(({ name }: { name: string }) => name),
    ['pp16', 'tg4', 'tg4 @ d32, batch 2', 'tg4 @ d32', 'first token', 'first token, no packed shards'],
  );
  for (const { name, unit, ours, peer, ratio, limits, peer_format, peer_run, num_threads } of comparisons) {
    t.match({ peer_format, num_threads, peer_run }, { peer_format: 'Q4_0', num_threads: 1, peer_run: { version: 'b7', commit: 'abc' } });
    t.equal(ratio.values.length, 2);
    const expected = ours.values.map((own: number, i: number) => (unit === 's' ? peer.values[i] / own : own / peer.values[i]));
    t.same(ratio.values, expected, name);
    if (unit === 's') continue;
    t.equal(peer.median, 100, 'the median of the repeats');
    t.equal(limits.peer.kind, name.startsWith('pp') ? 'arithmetic' : 'bandwidth');
    t.same(limits.peer.probe, limits.ours.probe);
    t.ok(Math.abs(limits.peer.share.values[0] - (100 * limits.peer.per_token) / limits.peer.probe.values[0]) < 1e-9);
  }
  t.same(left(tmp), []);
});

t.test('Markdown, of one group; programs on the path', async (t) => {
  const { programs, tmp } = makeFolders(t);
  const args = [...small, '--formats=bf16', '--rounds=1', '--groups=batch', '--markdown'];
  const { code, stdout, stderr } = await start(args, tmp, { PATH: `${programs}:${process.env['PATH']}`, NDS_LLAMA_CPP: '' }).ended;
  t.equal(code, 0, stderr);
  const [, row = []] = checkMarkdown(stdout);
  t.match(row.slice(0, 3), ['story-5m', 'bf16 / BF16', 'tg4 @ d32, batch 2']);
});

t.test('what is refused, and what fails', async (t) => {
  const { folder, programs, tmp } = makeFolders(t);
  const missing = await start([...small, '--llama-cpp', folder.replace(/$/, '/none')], tmp).ended;
  t.equal(missing.code, 64);
  t.match(missing.stderr, /Expected llama-bench in .*none: get llama\.cpp: .* \[ERR_NOT_FOUND\]/);
  const named = await start(['--shapes=story-6m'], tmp).ended;
  t.match(named.stderr, /did you mean story-5m.*\[ERR_USAGE\]/);
  const args = [...small, '--formats=bf16', '--groups=start', '--llama-cpp', programs];
  const failed = await start(args, tmp, { FAKE_FAILS: '1' }).ended;
  t.equal(failed.code, 70);
  t.match(failed.stderr, /to succeed but received exit code 3: out of luck \[ERR_SYSTEM\]/);
  t.same(left(tmp), []);
});

t.test('an interrupted comparison leaves no file', async (t) => {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const { folder, programs, tmp } = makeFolders(t);
    const waits = join(folder, 'waits');
    const args = [...small, '--formats=bf16', '--groups=start', '--llama-cpp', programs];
    const { child, ended } = start(args, tmp, { FAKE_WAITS: waits });
    const isAlive = () => child.exitCode === null && child.signalCode === null;
    while (!readdirSync(folder).includes('waits') && isAlive()) await new Promise((resolve) => setTimeout(resolve, 20));
    // Again and again, as from a terminal and from npm.
    for (; left(tmp).length > 0 && isAlive(); await new Promise((resolve) => setTimeout(resolve, 5))) child.kill(signal);
    const { code: received, stderr } = await ended;
    t.equal(received, code, stderr);
    t.same(left(tmp), [], signal);
  }
});
