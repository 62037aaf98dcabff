/** Signals to the launcher, and the end of ranks when it dies of a signal that it cannot catch. */
import { once } from 'node:events';
import t from 'tap';
import { allGone, fixture, isAlive, Running } from '../helpers/launcher.ts';

const act = fixture('act.ts');

/** Starts two ranks, sends a signal to the launcher when both are ready, and waits for the end. */
async function signalled(signal: NodeJS.Signals, actions: string[], options: string[] = []) {
  const running = new Running([`--nproc-per-node=${actions.length}`, ...options, act, ...actions]);
  const pids = await running.ranks(actions.length);
  running.child.kill(signal);
  const ended = await running.ended();
  return { ...ended, survivors: pids.filter(isAlive), leftovers: running.leftovers() };
}

t.test('a first signal is passed on to every rank', async (t) => {
  for (const [signal, expected] of [
    ['SIGTERM', 0],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const) {
    const { code, stderr, survivors, leftovers } = await signalled(signal, ['0=wait', '1=wait']);
    t.equal(code, expected, signal);
    t.equal(stderr, '', 'no report: nothing failed');
    t.same([survivors, leftovers], [[], []]);
  }
});

t.test('a rank that ends badly after SIGTERM gives the exit code', async (t) => {
  t.equal((await signalled('SIGTERM', ['0=polite:0', '1=polite:0'])).code, 0);
  t.equal((await signalled('SIGTERM', ['0=polite:0', '1=polite:143'])).code, 0, '143 is how a handler says SIGTERM');
  t.equal((await signalled('SIGTERM', ['0=polite:5', '1=polite:0'])).code, 5);
});

t.test('what ignores the signal is killed after --shutdown-timeout', async (t) => {
  const { code, stdout, survivors } = await signalled('SIGTERM', ['0=stubborn', '1=stuck'], ['--shutdown-timeout=2']);
  t.equal(code, 137);
  t.match(stdout, /0 got SIGTERM/);
  t.same(survivors, []);
});

t.test('a second signal kills now', async (t) => {
  const running = new Running(['--nproc-per-node=2', '--shutdown-timeout=1000', act, '0=stubborn', '1=stubborn']);
  const pids = await running.ranks(2);
  running.child.kill('SIGINT');
  await running.printed(/0 got SIGINT/);
  await running.printed(/1 got SIGINT/);
  running.child.kill('SIGINT');
  t.equal((await running.ended()).code, 130);
  t.same(pids.filter(isAlive), []);
  t.same(running.leftovers(), []);
});

t.test('SIGUSR2 makes every rank print its state and go on', async (t) => {
  const running = new Running(['--nproc-per-node=2', '--tee=3', '--log-dir', t.testdir(), act, '0=wait', '1=wait']);
  await running.ranks(2);
  let stderr = '';
  running.child.stderr?.on('data', (text: string) => {
    stderr += text;
  });
  running.child.kill('SIGUSR2');
  while (!/\[rank 0\] rank 0: up/.test(stderr) || !/\[rank 1\] rank 1: up/.test(stderr)) {
    await once(running.child.stderr as NodeJS.ReadableStream, 'data');
  }
  running.child.kill('SIGTERM');
  t.equal((await running.ended()).code, 0, 'the ranks were still there to be ended');
});

t.test('a killed launcher leaves no rank, whatever the ranks are doing', async (t) => {
  const running = new Running(['--nproc-per-node=3', act, '0=wait', '1=stuck', '2=stubborn']);
  const pids = await running.ranks(3);
  t.same(pids.map(isAlive), [true, true, true]);
  running.child.kill('SIGKILL');
  t.equal((await running.ended()).signal, 'SIGKILL');
  await allGone(pids);
});
