/** Faults of a gang with a model, in mid-step and while it loads. What rank 0's calls reject with is in test/distributed. */
import { join } from 'node:path';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { fixture, type Running } from '../helpers/launcher.ts';
import { repeats } from '../helpers/scale.ts';
import { expectExit, openSite, randomMoment, type Site, secondsSince, startAt } from '../helpers/site.ts';

const model = join(root, 'examples/models/story-180k');
const onLinux = { skip: process.platform !== 'linux' && 'reads /proc' };
const oneThread = { env: { OMP_NUM_THREADS: '1' } };

/** Two ranks that generate without end. */
function startEndless(site: Site, options: readonly string[] = []): Running {
  return startAt(site, ['--nproc-per-node=2', ...options, fixture('lost-rank.ts'), model], oneThread);
}

t.test('SIGSEGV in mid-step: 139 within 5 s, and named', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(50); i > 0; i--) {
    const gang = startEndless(site);
    const pids = await gang.ranks(2);
    await gang.printed(/generated/);
    await randomMoment(20);
    const start = performance.now();
    process.kill(pids[i % 2] as number, 'SIGSEGV');
    await expectExit(t, gang, 139, [new RegExp(`rank ${i % 2} failed first: killed by SIGSEGV`)]);
    t.ok(secondsSince(start) < 5, `${secondsSince(start)} s`);
    t.same(await site.leaks(), []);
  }
});

t.test('SIGKILL of a rank while it loads: 137 within 5 s, and named', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(50); i > 0; i--) {
    const gang = startEndless(site);
    const pids = await gang.ranks(2);
    // From the first import to the first tokens.
    await randomMoment(200);
    const start = performance.now();
    process.kill(pids[i % 2] as number, 'SIGKILL');
    await expectExit(t, gang, 137, [new RegExp(`rank ${i % 2} failed first: killed by SIGKILL`)]);
    t.ok(secondsSince(start) < 5, `${secondsSince(start)} s`);
    t.same(await site.leaks(), []);
  }
});

t.test('SIGTERM under load ends the job well', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(50); i > 0; i--) {
    const gang = startEndless(site);
    await gang.ranks(2);
    await randomMoment(300);
    gang.child.kill('SIGTERM');
    await expectExit(t, gang, 0);
    t.notMatch(gang.stderr, /failed first/);
    t.same(await site.leaks(), []);
  }
});

t.test('SIGKILL of the launcher under load leaves nothing to run', onLinux, async (t) => {
  const site = await openSite(t);
  for (let i = repeats(50); i > 0; i--) {
    const gang = startEndless(site);
    await gang.ranks(2);
    await randomMoment(300);
    gang.child.kill('SIGKILL');
    await gang.ended();
    await expectExit(t, startAt(site, [fixture('write.ts')]), 0);
    t.same(await site.leaks(1000), []);
  }
});

t.test('idle for ten times the step timeout, and healthy', onLinux, async (t) => {
  const site = await openSite(t);
  // Far more than a step takes; the idle time alone makes this test long.
  const running = startAt(site, ['--nproc-per-node=2', '--step-timeout=2', fixture('idle.ts'), model, '20000'], oneThread);
  await expectExit(t, running, 0);
  t.match(running.stdout, /the same/);
  t.equal(running.stderr, '');
  t.same(await site.leaks(), []);
});

t.test('jobs with models side by side', onLinux, async (t) => {
  const site = await openSite(t);
  const jobs = [1, 2, 2, 2].map((numRanks) => startAt(site, [`--nproc-per-node=${numRanks}`, fixture('idle.ts'), model, '0'], oneThread));
  for (const job of jobs) {
    await expectExit(t, job, 0);
    t.match(job.stdout, /the same/);
  }
  t.same(await site.leaks(), []);
});
