/** Processes that a test starts end with the test's process, even if that is killed. */
import t from 'tap';
import { allGone, fixture, isAlive } from '../helpers/launcher.ts';
import { spawnTied } from '../helpers/tied-process.ts';

/** Runs a stand-in for a test until its output matches all patterns; the first group of each is a process id. */
async function start(args: readonly string[], patterns: readonly RegExp[]) {
  const command = ['-u', 'NODE_OPTIONS', process.execPath, '--import', 'tsx', fixture('test-process.ts'), ...args];
  const parent = spawnTied('env', command, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  for await (const text of parent.stdout?.setEncoding('utf8') ?? []) {
    output += text;
    if (patterns.every((pattern) => pattern.test(output))) break;
  }
  return { parent, pids: patterns.map((pattern) => Number(pattern.exec(output)?.[1])) };
}

t.test('a test that is killed leaves no launcher and no rank, whatever they are doing', async (t) => {
  const ranks = [0, 1, 2].map((rank) => new RegExp(`ready ${rank} (\\d+)\\n`));
  const args = ['--nproc-per-node=3', '--shutdown-timeout=1000', fixture('act.ts'), '0=wait', '1=stuck', '2=stubborn'];
  const { parent, pids } = await start(args, [/launcher (\d+)\n/, ...ranks]);
  t.same(pids.map(isAlive), [true, true, true, true]);
  parent.kill('SIGKILL');
  await allGone(pids);
});

t.test('nor a rank that is a program of its own', async (t) => {
  const args = ['--nproc-per-node=2', '--no-node', 'sh', '-c', 'echo "$RANK runs as $$"; sleep 1000'];
  const { parent, pids } = await start(args, [/launcher (\d+)\n/, /0 runs as (\d+)\n/, /1 runs as (\d+)\n/]);
  t.same(pids.map(isAlive), [true, true, true]);
  parent.kill('SIGKILL');
  await allGone(pids);
});

t.test('a test that ends while its launcher runs leaves nothing either', async (t) => {
  const { parent, pids } = await start(['--nproc-per-node=1', fixture('act.ts'), '0=wait'], [/launcher (\d+)\n/, /ready 0 (\d+)\n/]);
  t.same(pids.map(isAlive), [true, true]);
  parent.kill('SIGTERM');
  await allGone(pids);
});
