/** Hangs of real gangs: what is one, what is none, who is named, and that nothing is left. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { allGone, fixture, Running } from '../helpers/launcher.ts';
import { startEndless } from '../helpers/lost-rank.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
/** A thousand times what a step of this model takes, and most of what a busy machine may hold one up. */
const stepTimeoutMs = 2000;
const options = [`--step-timeout=${stepTimeoutMs / 1000}`, '--failure-timeout=1'];

function start(numRanks: number, mode: string, value: string | number = '', more: readonly string[] = []): Running {
  const args = [`--nproc-per-node=${numRanks}`, ...options, ...more, fixture('hang.ts'), model, mode, String(value)];
  return new Running(args, { env: { OMP_NUM_THREADS: '1' } });
}

/** Waits for the end; checks the exit code, and that neither a process nor a file is left. */
async function ended(t: Test, gang: Running, numRanks: number, code: number) {
  const pids = await gang.ranks(numRanks);
  const found = await gang.ended();
  t.equal(found.code, code, found.stdout + found.stderr);
  await allGone(pids);
  t.same(gang.leftovers(), []);
  return found;
}

t.test('a follower that a signal stops is a hang, after a notice at half of the timeout', async (t) => {
  const report = join(t.testdir(), 'report.json');
  const gang = startEndless(3, 'story-5m', '', [...options, '--report', report]);
  const pids = await gang.ranks(3);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGSTOP');
  const { stdout, stderr } = await ended(t, gang, 3, 75);
  t.match(stderr, /no rank has made progress for 1 s\n.*rank 0 .*\n.*rank 1 is stopped by a signal .*\n.*rank 2 /);
  t.match(stderr, /rank [02] waits in (all-reduce of layer \d+|row exchange of embedding|all-gather of \w+), step \d+, for rank \d/);
  t.match(stderr, /\[ndsrun\] rank 1 hung, on /);
  t.match(stdout, /rejected ERR_STEP_TIMEOUT: Expected progress in step \d+ but received none for 2 s: rank 1 is stopped by a signal/);
  const { summary, first_failure: failure } = JSON.parse(readFileSync(report, 'utf8'));
  t.equal(summary, 'rank 1 hung');
  t.match(failure, { rank: 1, phase: /^(step|idle)$/, step: Number, oom_killed: false, error: { code: 'ERR_STEP_TIMEOUT' } });
});

t.test("a follower whose JavaScript is stuck has not begun the others' step", async (t) => {
  const go = join(t.testdir(), 'go');
  const gang = start(3, 'blocks its loop', go);
  await gang.printed(/generated/);
  writeFileSync(go, '');
  const { stderr } = await ended(t, gang, 3, 75);
  t.match(stderr, /rank 1 hung, on .*\n.*received none for 2 s: rank 1 has not begun step \d+ \[ERR_STEP_TIMEOUT\]/);
});

t.test('a rank that skips a collective ends the gang, and the step is named', async (t) => {
  const { stderr } = await ended(t, start(2, 'skips a collective'), 2, 78);
  t.match(stderr, /\[ndsrun\] rank \d failed first: exit code 78 in step \d+, on /);
  t.match(stderr, /step \d+, .*Expected rank \d in the same collective as rank \d but received .*\[ERR_MISMATCH\]/);
});

t.test('what is no hang, though it takes ten times the step timeout', async (t) => {
  const longMs = 10 * stepTimeoutMs;
  const cases = [
    ['an idle engine', 'idles'],
    ['a caller that computes while its requests are in flight', 'computes'],
    ['a rank that loads long after the others', 'loads late'],
  ] as const;
  const gangs = cases.map(([, mode]) => start(2, mode, longMs));
  for (const [index, [name]] of cases.entries()) {
    const { stdout, stderr } = await ended(t, gangs[index] as Running, 2, 0);
    t.match(stdout, /done/, name);
    t.notMatch(stderr, /no rank has made progress/, name);
  }
});

t.test('a launcher that was stopped judges nothing that it has not seen', async (t) => {
  const gang = startEndless(2, 'story-5m', '', ['--step-timeout=10']);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  gang.child.kill('SIGSTOP');
  process.kill(pids[1] as number, 'SIGSTOP');
  // Longer than the launcher's timeout; shorter than that of the collectives, which is twice as long.
  await sleep(13_000);
  gang.child.kill('SIGCONT');
  await sleep(1000);
  process.kill(pids[1] as number, 'SIGCONT');
  await gang.printed(/generated/, 'stdout', gang.stdout.length);
  gang.child.kill('SIGTERM');
  const { stderr } = await ended(t, gang, 2, 0);
  t.notMatch(stderr, /hung/);
});

t.test('SIGUSR2 shows the state of ranks whose JavaScript is stuck', async (t) => {
  const gang = new Running(['--nproc-per-node=2', '--shutdown-timeout=1', fixture('act.ts'), '0=wait', '1=stuck']);
  await gang.ranks(2);
  gang.child.kill('SIGUSR2');
  await gang.printed(/rank 1 has not begun to load/, 'stderr');
  gang.child.kill('SIGTERM');
  await ended(t, gang, 2, 137);
});

t.test('a crash is reported with its phase and step', async (t) => {
  const report = join(t.testdir(), 'report.json');
  const gang = startEndless(2, 'story-5m', '', ['--report', report]);
  const pids = await gang.ranks(2);
  // The first 50 tokens of a call take the steps 0 … 49.
  await gang.printed(/generated[\s\S]*generated/);
  process.kill(pids[1] as number, 'SIGKILL');
  await ended(t, gang, 2, 137);
  const { phase, step } = JSON.parse(readFileSync(report, 'utf8')).first_failure;
  t.ok(phase === 'step' || phase === 'idle', phase);
  t.ok(step >= 50, 'the steps before');
});
