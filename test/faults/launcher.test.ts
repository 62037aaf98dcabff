/** Faults of ranks and launcher that need no model: how soon and with which code the job ends, and that nothing is left. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fixture, type Running } from '../helpers/launcher.ts';
import { leftAfter, markedProcesses } from '../helpers/leaks.ts';
import { isFull, repeats } from '../helpers/scale.ts';
import { expectExit, openFolder, openSite, randomMoment, secondsSince, startAt } from '../helpers/site.ts';

const act = fixture('act.ts');
const onLinux = { skip: process.platform !== 'linux' && 'reads /proc' };

t.test('a rank exits with 42: so does the job within 5 s, and names it', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(100); i > 0; i--) {
    const running = startAt(site, ['--nproc-per-node=3', act, '0=wait', '1=wait', '2=exit-soon:42']);
    await running.printed(/ready 2/);
    const start = performance.now();
    await expectExit(t, running, 42, [/rank 2 failed first: exit code 42/]);
    t.ok(secondsSince(start) < 5, `${secondsSince(start)} s`);
    t.same(await site.leaks(), []);
  }
});

t.test('a survivor that ignores SIGTERM, or is stuck in a native call, is killed within 5 s', onLinux, async (t) => {
  const site = await openSite(t);
  const end = async (options: string[], survivor: string) => {
    const running = startAt(site, ['--nproc-per-node=2', ...options, act, `0=${survivor}`, '1=exit-soon:42']);
    await running.printed(/ready 1/);
    const start = performance.now();
    await expectExit(t, running, 42);
    t.ok(secondsSince(start) < 5, `${survivor}: ${secondsSince(start)} s`);
    t.same(await site.leaks(), []);
  };
  await end([], 'blocked');
  for (let i = repeats(100); i > 0; i--) await end(['--failure-timeout=0.1'], i % 2 === 0 ? 'blocked' : 'stubborn');
});

t.test('a launcher that is killed leaves no rank after 1 s, and the next one removes its files', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(100); i > 0; i--) {
    const running = startAt(site, ['--nproc-per-node=3', act, '0=wait', '1=blocked', '2=stubborn']);
    await running.ranks(3);
    running.child.kill('SIGKILL');
    const left = () => markedProcesses(site.place.mark).map(String);
    t.same(await leftAfter(left, 1000), []);
    await running.ended();
    t.match(await site.leaks(0), [/nds-/], 'its run folder');
    await expectExit(t, startAt(site, [fixture('write.ts')]), 0);
    t.same(await site.leaks(), []);
  }
});

t.test('a launcher that is killed while it starts its ranks leaves nothing to run', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(100); i > 0; i--) {
    const running = startAt(site, ['--nproc-per-node=3', act, '0=wait', '1=wait', '2=wait']);
    await randomMoment(300);
    running.child.kill('SIGKILL');
    t.same(await leftAfter(() => markedProcesses(site.place.mark).map(String), 1000), []);
    await running.ended();
  }
  await expectExit(t, startAt(site, [fixture('write.ts')]), 0);
  t.same(await site.leaks(), []);
});

t.test('signals at any moment of a job that starts', onLinux, async (t) => {
  const site = await openSite(t);
  const isRunning = ({ child }: Running) => child.exitCode === null && child.signalCode === null;
  for (let i = repeats(100); i > 0; i--) {
    const running = startAt(site, ['--nproc-per-node=2', '--shutdown-timeout=1000', act, '0=stubborn', '1=blocked']);
    await randomMoment(400);
    running.child.kill('SIGINT');
    await randomMoment(50);
    while (isRunning(running)) {
      // The second kills; one that comes before the launcher listens ends it as it ends any process.
      running.child.kill('SIGINT');
      await Promise.race([running.ended(), randomMoment(200)]);
    }
    const { code, signal } = await running.ended();
    t.match([code, signal], code === null ? [null, 'SIGINT'] : [130, null]);
    t.same(await site.leaks(), []);
  }
});

t.test('SIGUSR1 opens no inspector, neither in the launcher nor in a rank', onLinux, async (t) => {
  const site = await openSite(t);
  const running = startAt(site, ['--nproc-per-node=2', act, '0=wait', '1=wait']);
  const pids = await running.ranks(2);
  for (const pid of [...pids, running.child.pid as number]) process.kill(pid, 'SIGUSR1');
  // Both answer it after SIGUSR1.
  running.child.kill('SIGUSR2');
  while (!/rank 0: up/.test(running.stderr) || !/rank 1: up/.test(running.stderr))
    await once(running.child.stderr as NodeJS.ReadableStream, 'data');
  t.notMatch(running.stderr, /[Dd]ebugger/);
  running.child.kill('SIGTERM');
  await expectExit(t, running, 0);
  t.same(await site.leaks(), []);
});

t.test('jobs side by side do not meet', onLinux, async (t) => {
  const site = await openSite(t);
  const jobs = [0, 1, 2, 3].map((i) => startAt(site, ['--nproc-per-node=2', act, '0=wait', `1=${i === 0 ? 'exit-soon:42' : 'wait'}`]));
  const [failing, ...others] = jobs as [Running, ...Running[]];
  for (const job of others) await job.ranks(2);
  await expectExit(t, failing, 42);
  const [killed, ...rest] = others as [Running, ...Running[]];
  killed.child.kill('SIGKILL');
  await killed.ended();
  // Removes what the killed launcher left, and nothing else.
  await expectExit(t, startAt(site, [fixture('write.ts')]), 0);
  for (const job of rest) {
    job.child.kill('SIGTERM');
    await expectExit(t, job, 0);
  }
  t.same(await site.leaks(), []);
});

t.test('a gigabyte of output that nobody reads stalls no rank and takes no memory', onLinux, async (t) => {
  const site = openFolder(t);
  const mebibytes = isFull ? 512 : 64;
  const done = join(t.testdir(), 'done');
  const running = startAt(site, [
    '--nproc-per-node=2',
    '--no-node',
    'sh',
    '-c',
    `yes ${'x'.repeat(1021)} | head -c ${mebibytes}M; touch ${done}-$RANK; exec sleep 1000`,
  ]);
  running.child.stdout?.pause();
  const memoryMiB = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${running.child.pid}/status`, 'utf8'))?.[1]) / 1024;
  const isDone = (rank: number) => readFileSync(`${done}-${rank}`, 'utf8') === '';
  for (const rank of [0, 1]) await leftAfter(() => (exists(() => isDone(rank)) ? [] : ['writes']), 600_000);
  t.ok(memoryMiB() < 400, `${memoryMiB()} MiB`);
  running.child.kill('SIGTERM');
  running.child.stdout?.removeAllListeners('data').resume();
  await expectExit(t, running, 0);
  t.same(await site.leaks(), []);
});

function exists(check: () => boolean): boolean {
  try {
    return check();
  } catch {
    return false;
  }
}
