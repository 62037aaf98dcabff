/** Limits of cgroups: of processors, which ranks share, and of memory, which kills. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { inCgroup, type Settings } from '../helpers/cgroup.ts';
import { fixture, ndsrun } from '../helpers/launcher.ts';
import { repeats } from '../helpers/scale.ts';
import { secondsSince } from '../helpers/site.ts';

/** Runs a test in a cgroup, or says why it cannot. */
function limited(name: string, controller: string, settings: Settings, run: (t: Test, prefix: readonly string[]) => Promise<void>): void {
  t.test(name, async (t) => {
    const prefix = inCgroup(t, controller, settings);
    if (typeof prefix === 'string') t.pass(name, { skip: prefix });
    else await run(t, prefix);
  });
}

/** Threads that each of `numRanks` ranks is given. */
async function threads(numRanks: number, prefix: readonly string[]): Promise<number[]> {
  const { stdout } = await ndsrun([`--nproc-per-node=${numRanks}`, '--dry-run', fixture('env.ts')], { prefix });
  const { ranks } = JSON.parse(stdout) as { ranks: { env: Record<string, string> }[] };
  return ranks.map(({ env }) => Number(env['OMP_NUM_THREADS']));
}

const half: Settings = {
  1: { 'cpu.cfs_period_us': '100000', 'cpu.cfs_quota_us': '50000' },
  2: { 'cpu.max': '50000 100000' },
};
limited('a quota of half a processor', 'cpu', half, async (t, prefix) => {
  t.same(await threads(1, prefix), [1]);
  t.same(await threads(3, prefix), [1, 1, 1]);
  t.match((await ndsrun(['doctor'], { prefix })).stdout, /^processor .*, 1 of \d+ cores may be used, by a quota of 0\.5$/m);
});

const first: Settings = {
  1: { 'cpuset.cpus': '0', 'cpuset.mems': '0' },
  2: { 'cpuset.cpus': '0' },
};
limited('a set of one processor', 'cpuset', first, async (t, prefix) => {
  t.same(await threads(1, prefix), [1]);
});

const mebibytes = 640;
const little: Settings = {
  1: { 'memory.limit_in_bytes': `${mebibytes}M` },
  2: { 'memory.max': `${mebibytes}M`, 'memory.swap.max': '0' },
};
limited('a limit of memory', 'memory', little, async (t, prefix) => {
  t.match((await ndsrun(['doctor'], { prefix })).stdout, /^memory .*, limited to 0\.6 GiB$/m);
  const report = join(t.testdir(), 'report.json');
  const args = ['--nproc-per-node=2', '--report', report, fixture('fill-memory.ts'), '4096'];
  for (let i = repeats(20); i > 0; i--) {
    const start = performance.now();
    const { code, stderr } = await ndsrun(args, { prefix });
    t.equal(code, 137);
    t.match(stderr, /rank 1 failed first: killed by SIGKILL, .*\n.* memory ran out/);
    const evidence = /^oom_kill in \/.*memory\.(oom_control|events) went from \d+ to \d+$/;
    t.match(JSON.parse(readFileSync(report, 'utf8')), {
      first_failure: { rank: 1, signal: 'SIGKILL', oom_killed: true, oom_evidence: evidence },
    });
    // The time in which the memory is filled with it.
    t.ok(secondsSince(start) < 120, `${secondsSince(start)} s`);
  }
});
