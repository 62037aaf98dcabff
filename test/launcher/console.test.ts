/** A console that is gone, or does not read; a job that outlives its terminal, and one that does not. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { allGone, executable, fixture, isAlive, ndsrun, Running } from '../helpers/launcher.ts';
import { cannotMount, mounted } from '../helpers/mounts.ts';
import { isFull } from '../helpers/scale.ts';
import { spawnTied } from '../helpers/tied-process.ts';

const trickle = fixture('trickle.ts');
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves once `check` holds; only the test's own timeout limits the wait. */
async function until(check: () => boolean): Promise<void> {
  while (!check()) await pause(20);
}

function readLog(dir: string, path: string): string {
  const [run = ''] = readdirSync(dir);
  return readFileSync(join(dir, run, 'attempt_0', path), 'utf8');
}

for (const numRanks of [1, 2]) {
  t.test(`the job of ${numRanks} ends when its reader has left, as by a broken pipe`, async (t) => {
    const running = new Running([`--nproc-per-node=${numRanks}`, trickle, '/never']);
    await running.printed(/line 0\n/);
    running.child.stdout?.destroy();
    const { code, stderr } = await running.ended();
    t.equal(code, 141);
    t.notMatch(stderr, /failed|Error|ndsrun/, 'quietly');
    t.same(running.leftovers(), []);
  });
}

t.test('a rank that ignores its end is killed', async (t) => {
  const ignoring = "trap '' TERM; while :; do echo line; sleep 0.02; done";
  const running = new Running(['--nproc-per-node=2', '--failure-timeout=0.2', '--no-node', 'sh', '-c', ignoring]);
  await running.printed(/line\n/);
  running.child.stdout?.destroy();
  t.equal((await running.ended()).code, 141);
});

t.test('a job whose output files take goes on without a reader, and says so', async (t) => {
  const dir = t.testdir({ logs: {} });
  const done = join(dir, 'done');
  const running = new Running(['--nproc-per-node=2', '--log-dir', join(dir, 'logs'), trickle, done]);
  await running.printed(/line 0\n/);
  running.child.stdout?.destroy();
  const numLines = (): number => readLog(join(dir, 'logs'), '1/stdout.log').split('\n').length;
  const before = numLines();
  await until(() => numLines() > before + 10);
  writeFileSync(done, '');
  const { code, stderr } = await running.ended();
  t.equal(code, 0);
  t.equal(stderr.split('\n').filter((line) => line.includes('nobody reads standard output any more')).length, 1);
});

t.test('a signal while the last output waits for its reader ends the launcher, and leaves nothing', async (t) => {
  const done = join(t.testdir(), 'done');
  const running = new Running(['--nproc-per-node=1', fixture('flood.ts'), '1', done]);
  running.child.stdout?.pause();
  await until(() => existsSync(`${done}-0`));
  // The first one stops the job, or comes when it has ended already; the next ones find the output alone.
  while (running.child.signalCode === null && running.child.exitCode === null) {
    running.child.kill('SIGTERM');
    await pause(200);
  }
  running.child.stdout?.resume();
  t.equal((await running.ended()).signal, 'SIGTERM');
  t.same(running.leftovers(), []);
});

t.test('messages without a reader end nothing', async (t) => {
  const done = join(t.testdir(), 'done');
  const running = new Running(['--nproc-per-node=2', trickle, done]);
  await running.printed(/line 0\n/);
  running.child.stderr?.destroy();
  const seen = running.stdout.length;
  await until(() => running.stdout.length > seen + 500);
  writeFileSync(done, '');
  t.equal((await running.ended()).code, 0);
});

t.test('closed at the start: there is no console', async (t) => {
  for (const streams of ['>&-', '2>&-', '>&- 2>&-', '<&- >&- 2>&-']) {
    for (const numRanks of [1, 2]) {
      const prefix = ['sh', '-c', `exec "$@" ${streams}`, 'sh'];
      const { code } = await ndsrun([`--nproc-per-node=${numRanks}`, fixture('write.ts'), '0:out', '0:!err'], { prefix });
      t.equal(code, 0, streams);
    }
  }
});

t.test('output that nobody reads is kept, to a limit, in bounded memory', async (t) => {
  // Past a gibibyte it is dropped.
  const mebibytes = isFull ? 1100 : 96;
  const done = join(t.testdir(), 'done');
  const running = new Running(['--nproc-per-node=1', fixture('flood.ts'), String(mebibytes), done]);
  running.child.stdout?.pause();
  await until(() => existsSync(`${done}-0`));
  const peak = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${running.child.pid}/status`, 'utf8'))?.[1]) / 1024;
  t.ok(peak < 220, `the launcher took ${Math.round(peak)} MiB at most`);
  running.child.stdout?.removeAllListeners('data');
  let size = 0;
  let end = '';
  running.child.stdout?.on('data', (text: string) => {
    size += text.length;
    end = `${end}${text}`.slice(-200);
  });
  running.child.stdout?.resume();
  t.equal((await running.ended()).code, 0);
  if (!isFull) t.equal(size, mebibytes * 2 ** 20);
  else t.match(end, /\d+ bytes of output were dropped here: they were not read in time\n$/);
});

/** The executable by its own first line, after a shell's `setting`. */
function viaShell(setting: string): readonly string[] {
  return ['sh', '-c', `${setting}; shift; exec "$@"`, 'sh'];
}

t.test('SIGHUP ends the job, unless it was ignored at its start', async (t) => {
  for (const [setting, code] of [
    ["trap '' HUP", 0],
    ['true', 129],
  ] as const) {
    const running = new Running(['--nproc-per-node=2', fixture('act.ts'), '0=wait', '1=wait'], { prefix: viaShell(setting) });
    const pids = await running.ranks(2);
    running.child.kill('SIGHUP');
    if (code === 0) {
      await pause(300);
      t.ok(pids.every(isAlive), 'as under nohup');
      running.child.kill('SIGTERM');
    }
    t.match(await running.ended(), { code, stderr: /^$/ }, 'nothing but the ranks prints');
    await allGone(pids);
  }
});

const hasScript = spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux') ?? false;

t.test('a terminal that closes', { skip: hasScript ? false : "util-linux' script is not here" }, async (t) => {
  const dir = t.testdir();
  for (const [name, numRanks, line] of [
    ['one', 1, `exec '${executable}'`],
    ['two', 2, `exec '${executable}'`],
    ['nohup', 2, `exec nohup '${executable}'`],
  ] as const) {
    const pids = join(dir, name);
    const shell = `echo $$ >> '${pids}'; while :; do echo line; sleep 0.02; done`;
    const inner = `cd '${dir}'; echo $$ > '${pids}'; ${line} --nproc-per-node=${numRanks} --no-node sh -c "${shell.replaceAll('$', '\\$')}"`;
    const terminal = spawnTied('script', ['-qec', inner, '/dev/null'], { stdio: ['pipe', 'ignore', 'ignore'] });
    const found = (): number[] => (existsSync(pids) ? readFileSync(pids, 'utf8').trim().split('\n').map(Number) : []);
    await until(() => found().length === numRanks + 1);
    terminal.kill('SIGKILL');
    if (name === 'nohup') {
      const output = join(dir, 'nohup.out');
      const before = readFileSync(output, 'utf8').length;
      await until(() => readFileSync(output, 'utf8').length > before + 200);
      t.ok(found().every(isAlive), 'goes on into nohup.out');
      process.kill(found()[0] as number, 'SIGTERM');
    }
    await allGone(found());
  }
});

t.test('a full disk', { skip: cannotMount }, async (t) => {
  const dir = t.testdir({ full: {} });
  const full = join(dir, 'full');
  const done = join(dir, 'done');
  const flood = ['--nproc-per-node=2', fixture('flood.ts'), '1', done];
  const xs = (text: string): number => text.replaceAll(/[^x]/g, '').length;

  const logged = await ndsrun(['--log-dir', full, ...flood], { prefix: mounted(full, 256) });
  t.equal(logged.code, 0, 'under the logs: the job goes on');
  t.equal(logged.stderr.match(/could not write .*no space/g)?.length, 1, logged.stderr);
  t.equal(xs(logged.stdout), 2 * 1024 * 1023, 'the console has all of it');

  const toFile = [...mounted(full, 256), 'sh', '-c', `exec "$@" > '${full}/out'`, 'sh'];
  const written = await ndsrun(flood, { prefix: toFile });
  t.equal(written.code, 70, 'under standard output: the job goes on, and its exit code says that the output is not whole');
  t.equal(written.stderr.match(/could not write standard output, which ends here: .*no space/g)?.length, 1, written.stderr);
  t.ok(existsSync(`${done}-0`) && existsSync(`${done}-1`));
});
