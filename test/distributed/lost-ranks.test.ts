/** Ranks that are killed, hang, leave or never come: rank 0 gets the cause, and no process is left. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import t from 'tap';
import { allGone, fixture, ndsrun } from '../helpers/launcher.ts';
import { expectEnd, startEndless } from '../helpers/lost-rank.ts';

const start = (numRanks: number, mode = '', options: readonly string[] = [], env = {}) =>
  startEndless(numRanks, 'story-5m', mode, options, env);

t.test('a rank that is killed', async (t) => {
  const gang = start(3);
  const pids = await gang.ranks(3);
  await gang.printed(/generated/);
  process.kill(pids[2] as number, 'SIGKILL');
  const message = 'ERR_PEER_LOST: Expected rank 2 to go on but it was ended by SIGKILL';
  await expectEnd(
    t,
    gang,
    3,
    137,
    ['rejected', 'later', 'again', 'failed'].map((what) => new RegExp(`${what} ${message}`)).concat(/closed/),
  );
});

const restarts = (count: number) => [`--max-restarts=${count}`, '--restart-backoff=0'];

t.test('a rank that is killed once more than restarts are allowed', async (t) => {
  const gang = start(2, '', restarts(1));
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGKILL');
  const [, second] = await gang.printed(/ready 1 \d+\n[\s\S]*ready 1 (\d+)\n[\s\S]*generated/);
  process.kill(Number(second), 'SIGKILL');
  const message = 'ERR_PEER_LOST: Expected rank 1 to go on but it was ended by SIGKILL';
  const output = ['rejected', 'later', 'again', 'failed'].map((what) => new RegExp(`${what} ${message}`));
  await expectEnd(t, gang, 2, 137, output);
  await allGone([Number(second)]);
});

t.test('a rank that stops in mid-step is started anew', async (t) => {
  const gang = start(2, '', ['--step-timeout=3', ...restarts(1)]);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGSTOP');
  await gang.printed(/ready 1 \d+\n[\s\S]*ready 1 \d+\n[\s\S]*generated/);
  gang.child.kill('SIGTERM');
  await expectEnd(t, gang, 2, 0);
});

t.test('rank 0 is killed, and the script starts again', async (t) => {
  const gang = start(2, 'forgets to close', restarts(1));
  const pids = await gang.ranks(2);
  process.kill(pids[0] as number, 'SIGKILL');
  await expectEnd(t, gang, 2, 0);
  t.match((await gang.ended()).stderr, /LLM: rank 0 was lost and this script was started again \(restart 1 of 1\)/);
});

t.test('a rank that cannot load is not started again', async (t) => {
  await expectEnd(t, start(2, 'cannot load', restarts(3)), 2, 64, [
    /failed ERR_USAGE: Rank 1: Expected an integer .* for OMP_NUM_THREADS but received "many"/,
  ]);
});

t.test('a rank that ends without a failure is not waited for', async (t) => {
  await expectEnd(t, start(2, 'leaves early', restarts(3)), 2, 69, [/failed ERR_PEER_LOST: Expected rank 1 to go on but it has ended/]);
});

t.test('rank 0 is killed', async (t) => {
  const gang = start(3);
  const pids = await gang.ranks(3);
  await gang.printed(/generated/);
  process.kill(pids[0] as number, 'SIGKILL');
  await expectEnd(t, gang, 3, 137);
});

t.test('the launcher is killed in mid-step', async (t) => {
  const TMPDIR = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(TMPDIR, { recursive: true }));
  const gang = start(3, '', [], { TMPDIR });
  const pids = await gang.ranks(3);
  await gang.printed(/generated/);
  gang.child.kill('SIGKILL');
  await allGone(pids);
  await gang.ended();
  t.match(readdirSync(TMPDIR), [/^nds-/], 'nobody was left to remove the folder of the gang');
  await ndsrun([fixture('write.ts')], { env: { TMPDIR } });
  t.notMatch(readdirSync(TMPDIR).join(), /nds-/, 'the next launcher does');
});

t.test('a rank that stops in mid-step is missed by name', async (t) => {
  const gang = start(2, '', ['--step-timeout=3']);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGSTOP');
  await expectEnd(t, gang, 2, 75, [
    /rejected ERR_STEP_TIMEOUT: Expected progress in step \d+ but received none for 3 s: rank 1 is stopped by a signal/,
  ]);
});

t.test('a rank that ends without a failure', async (t) => {
  await expectEnd(t, start(2, 'leaves early'), 2, 69, [/failed ERR_PEER_LOST: Expected rank 1 to go on but it has ended/]);
});

t.test('a rank that cannot load', async (t) => {
  await expectEnd(t, start(2, 'cannot load'), 2, 64, [
    /failed ERR_USAGE: Rank 1: Expected an integer .* for OMP_NUM_THREADS but received "many"/,
  ]);
});

t.test('rank 0 that never loads ends the others', async (t) => {
  await expectEnd(t, start(2, 'never loads'), 2, 0);
});

t.test('rank 0 that ends ends the others, whatever their script left running', async (t) => {
  await expectEnd(t, start(2, 'ends'), 2, 0);
});

t.test('rank 0 that forgets to close can end', async (t) => {
  await expectEnd(t, start(2, 'forgets to close'), 2, 0);
});

t.test('SIGTERM to the launcher ends a gang in mid-step', async (t) => {
  const gang = start(2);
  await gang.printed(/generated/);
  gang.child.kill('SIGTERM');
  await expectEnd(t, gang, 2, 0);
});

t.test('SIGTERM to rank 0 alone ends it as ever, and the others with it', async (t) => {
  const gang = start(2);
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[0] as number, 'SIGTERM');
  await expectEnd(t, gang, 2, 143);
});
