/** Restarts of real processes: who stays, what is new in an epoch, when it ends, and what is left behind. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ownedPrefix } from '../../launcher/owned-names.ts';
import { allGone, fixture, isAlive, ndsrun, Running } from '../helpers/launcher.ts';

const epochs = fixture('epochs.ts');
const act = fixture('act.ts');
const restarts = (max: number) => [`--max-restarts=${max}`, '--restart-backoff=0'];

interface Start {
  readonly pid: number;
  readonly memory: string;
}

/** Starts of ranks, by `RANK.EPOCH`. */
function startsOf(stdout: string): Record<string, Start> {
  const lines = stdout.matchAll(/start (\d+\.\d+) (\d+) memory (\d+)/g);
  return Object.fromEntries([...lines].map(([, name = '', pid, memory = '']) => [name, { pid: Number(pid), memory }]));
}

/** Files in shared memory of a launcher. */
function memoryFiles(launcherPid: number | undefined): string[] {
  const prefix = ownedPrefix(undefined, launcherPid);
  return existsSync('/dev/shm') ? readdirSync('/dev/shm').filter((name) => name.startsWith(prefix)) : [];
}

t.test('a lost follower is started anew with the others, and rank 0 goes on', async (t) => {
  const running = new Running(['--nproc-per-node=3', ...restarts(2), epochs, '1.0=exit:42', 'ends=1', 'loads']);
  const { code, stdout, stderr } = await running.ended();
  t.equal(code, 0, stderr);
  const starts = startsOf(stdout);
  t.same(Object.keys(starts).sort(), ['0.0', '1.0', '1.1', '2.0', '2.1']);
  t.match(stdout, /lost 1 42\n/);
  const [, memory] = /gang 1 memory (\d+)/.exec(stdout) ?? [];
  t.equal(memory, starts['1.1']?.memory, 'the same memory as the new ranks');
  t.not(memory, starts['0.0']?.memory, 'a new one');
  t.match(stderr, /rank 1 was lost \(exit code 42\): restart 1 of 2 in 0 s, rank 0 goes on and the others start anew/);
  t.match(stdout, /epoch 1 is complete/);
  t.match(stdout, /memory unlinked/, 'once rank 0 is ready');
  t.same([running.leftovers(), memoryFiles(running.child.pid)], [[], []]);
  t.same(
    Object.values(starts).filter(({ pid }) => isAlive(pid)),
    [],
  );
});

t.test('the loss of rank 0 starts the script again on every rank', async (t) => {
  const { code, stdout, stderr } = await ndsrun(['--nproc-per-node=2', ...restarts(1), epochs, '0.0=kill:SIGKILL', 'ends=1']);
  t.equal(code, 0, stderr);
  const starts = startsOf(stdout);
  t.same(Object.keys(starts).sort(), ['0.0', '0.1', '1.0', '1.1']);
  t.notMatch(stdout, /lost|gang/, 'nobody is left to be told');
  t.match(stderr, /rank 0 was lost \(killed by SIGKILL\): restart 1 of 1 in 0 s, the whole gang starts its script again/);
});

t.test('a crash loop ends', async (t) => {
  const report = join(t.testdir(), 'report.json');
  const crashes = ['1.0=exit:42', '1.1=exit:42', '1.2=exit:43'];
  const unready = await ndsrun(['--nproc-per-node=2', ...restarts(2), '--report', report, epochs, ...crashes]);
  t.equal(unready.code, 42);
  t.same(Object.keys(startsOf(unready.stdout)).sort(), ['0.0', '1.0', '1.1']);
  t.match(unready.stderr, /not restarted: 2 times in a row it ended before a model was loaded/);
  t.match(JSON.parse(readFileSync(report, 'utf8')), {
    restarts: [{ rank: 1, cause: 'exit code 42' }],
    first_failure: { rank: 1, exit_code: 42 },
  });

  const ready = await ndsrun(['--nproc-per-node=2', ...restarts(2), epochs, ...crashes, 'loads']);
  t.equal(ready.code, 43);
  t.match(ready.stderr, /not restarted: restart 2 of 2 was the last/);
  t.same(ready.stderr.split('\n').filter((line) => line.includes('was lost')).length, 2, 'one line for each restart');
});

t.test('an error that would come again is not followed by a restart', async (t) => {
  for (const [action, code] of [
    ['throw-nds:ERR_CONFIG', 65],
    ['throw-nds:ERR_MISMATCH', 78],
    ['throw-nds:ERR_USAGE', 64],
  ] as const) {
    const { code: received, stderr } = await ndsrun(['--nproc-per-node=2', ...restarts(2), act, '0=wait', `1=${action}`]);
    t.equal(received, code);
    t.match(stderr, /not restarted: the error would come again/);
  }
});

t.test('a follower that ignores SIGTERM is killed before the next epoch starts', async (t) => {
  const running = new Running([
    '--nproc-per-node=3',
    ...restarts(1),
    '--failure-timeout=0.5',
    epochs,
    '1.0=exit:1',
    '2.0=stubborn',
    'ends=1',
  ]);
  const { code, stdout } = await running.ended();
  t.equal(code, 0);
  const starts = startsOf(stdout);
  t.ok(starts['2.1'] !== undefined);
  t.same(
    Object.values(starts).filter(({ pid }) => isAlive(pid)),
    [],
  );
});

t.test('a signal during the backoff ends the job', async (t) => {
  const running = new Running(['--nproc-per-node=2', '--max-restarts=3', '--restart-backoff=1000', epochs, '1.0=exit:42']);
  await running.printed(/lost 1 42/);
  running.child.kill('SIGTERM');
  const { code, stdout } = await running.ended();
  t.equal(code, 42, 'the failure that no restart has followed');
  await allGone(Object.values(startsOf(stdout)).map(({ pid }) => pid));
  t.same([running.leftovers(), memoryFiles(running.child.pid)], [[], []]);
});

t.test('each epoch has its own log files', async (t) => {
  const logs = t.testdir();
  const { code } = await ndsrun(['--nproc-per-node=2', ...restarts(1), '--log-dir', logs, epochs, '1.0=exit:1', 'ends=1']);
  t.equal(code, 0);
  const [folder = ''] = readdirSync(logs);
  t.same(readdirSync(join(logs, folder)).sort(), ['attempt_0', 'attempt_1']);
  t.match(readFileSync(join(logs, folder, 'attempt_1', '1', 'stdout.log'), 'utf8'), /start 1\.1/);
});

t.test('a launcher that is killed after a restart leaves no rank, and the next one removes its files', async (t) => {
  const running = new Running(['--nproc-per-node=2', ...restarts(1), epochs, '1.0=exit:1']);
  await running.printed(/epoch 1 is complete/);
  const pids = Object.values(startsOf(running.stdout)).map(({ pid }) => pid);
  running.child.kill('SIGKILL');
  await running.ended();
  await allGone(pids);
  await ndsrun(['--nproc-per-node=1', act]);
  t.same(memoryFiles(running.child.pid), []);
});
