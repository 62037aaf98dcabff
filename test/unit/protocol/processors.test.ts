/** Processors of made-up systems: masks, SMT siblings and quotas, and the threads that ranks get of them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { numUsableCores, type Processors, readProcessors } from '../../../protocol/processors.ts';
import { placeThreads, type ThreadPlacement } from '../../../rank/gang/threads.ts';

interface System {
  readonly mask?: string;
  readonly online?: string;
  /** Siblings of each processor that has some. */
  readonly siblings?: Readonly<Record<number, string>>;
  /** The process's cgroups, and files below their root. */
  readonly cgroups?: string;
  readonly files?: Readonly<Record<string, string>>;
}

function read(t: Test, { mask, online, siblings = {}, cgroups = '0::/\n', files = {} }: System): Processors {
  const dir = t.testdir({
    proc: { cgroup: cgroups, ...(mask !== undefined && { status: `Name:\tnode\nCpus_allowed_list:\t${mask}\nMems_allowed_list:\t0\n` }) },
  });
  const topology = Object.entries(siblings).map(([cpu, list]): [string, string] => [
    `cpu/cpu${cpu}/topology/thread_siblings_list`,
    `${list}\n`,
  ]);
  if (online !== undefined) topology.push(['cpu/online', `${online}\n`]);
  for (const [path, text] of [...topology, ...Object.entries(files).map(([path, text]) => [join('cgroup', path), text] as const)]) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), text);
  }
  return readProcessors({
    statusPath: join(dir, 'proc', 'status'),
    cpuRoot: join(dir, 'cpu'),
    cgroups: { listPath: join(dir, 'proc', 'cgroup'), root: join(dir, 'cgroup') },
  });
}

const none = Number.POSITIVE_INFINITY;
/** `numCores` cores without siblings. */
const plain = (numCores: number, quota = none): Processors => ({ cores: Array.from({ length: numCores }, (_, i) => [i]), quota });

t.test('masks, by core', async (t) => {
  t.same(read(t, { mask: '0-3,8' }).cores, [[0], [1], [2], [3], [8]]);
  t.same(read(t, { mask: '5' }), { cores: [[5]], quota: none });
  const siblings = Object.fromEntries([0, 1, 2, 3, 4, 5, 6, 7].map((cpu) => [cpu, `${cpu % 4},${(cpu % 4) + 4}`]));
  t.same(read(t, { mask: '0-7', siblings }).cores, [
    [0, 4],
    [1, 5],
    [2, 6],
    [3, 7],
  ]);
  t.same(read(t, { mask: '1-2,5', siblings }).cores, [[1, 5], [2]], 'of a core, one sibling is allowed');
  const ranges = { 0: '0-1', 1: '0-1', 2: '2-3', 3: '2-3' };
  t.same(read(t, { mask: '0-3', siblings: ranges }).cores, [
    [0, 1],
    [2, 3],
  ]);
  t.same(read(t, { mask: '0-127', online: '0-2,5' }).cores, [[0], [1], [2], [5]], 'a mask of all that the machine could have');
  t.ok(read(t, {}).cores.length >= 1, 'a system without masks');
});

t.test('quotas of both versions, at every level', async (t) => {
  const two = (own: string, above: string) =>
    read(t, { mask: '0-15', cgroups: '0::/pod/box\n', files: { 'pod/box/cpu.max': own, 'pod/cpu.max': above } });
  t.equal(two('200000 100000\n', 'max 100000\n').quota, 2);
  t.equal(two('max 100000\n', '150000 100000\n').quota, 1.5, 'above');
  t.equal(two('max 100000\n', 'max 100000\n').quota, none);
  const one = read(t, {
    mask: '0-15',
    cgroups: '2:cpu,cpuacct:/box\n1:cpuset:/box\n0::/\n',
    files: { 'cpu,cpuacct/box/cpu.cfs_quota_us': '350000\n', 'cpu,cpuacct/box/cpu.cfs_period_us': '100000\n' },
  });
  t.equal(one.quota, 3.5);
});

t.test('how many compute', async (t) => {
  const count = (processors: Processors) => numUsableCores(processors);
  t.same([count(plain(16)), count(plain(16, 2)), count(plain(2, 8))], [16, 2, 2]);
  t.same([count(plain(16, 0.5)), count(plain(16, 1.5)), count(plain(16, 2.9)), count(plain(0))], [1, 1, 2, 1]);
  t.equal(count(read(t, { mask: '0-3', siblings: { 0: '0,1', 1: '0,1', 2: '2,3', 3: '2,3' } })), 2, 'siblings share a core');
});

t.test('where the threads of a rank run', async (t) => {
  const place = (processors: Processors, localWorldSize: number, numThreads: number): ThreadPlacement[] =>
    Array.from({ length: localWorldSize }, (_, localRank) => placeThreads(processors, { localRank, localWorldSize, numThreads }));
  const free = { processors: [], isCrowded: false };
  const crowded = { processors: [], isCrowded: true };
  const pinned = (...processors: number[]): ThreadPlacement => ({ processors, isCrowded: false });
  t.same(place(plain(4), 1, 4), [pinned(0, 1, 2, 3)]);
  t.same(place(plain(4), 2, 2), [pinned(0, 1), pinned(2, 3)]);
  t.same(place({ cores: [[3], [7]], quota: none }, 2, 1), [pinned(3), pinned(7)], 'a cpuset');
  t.same([place(plain(4), 1, 3), place(plain(4), 3, 1)], [[free], [free, free, free]], 'threads that leave cores free move');
  t.same(place(plain(2), 3, 1), [crowded, crowded, crowded]);
  t.same(place(plain(2, 2), 1, 2), [pinned(0, 1)], 'a quota for all of them');
  t.same(place(plain(16, 2), 1, 2), [free], 'a quota below the mask');
  t.same(place(plain(2, 1), 2, 1), [crowded, crowded], 'a quota below the ranks');
  t.same(place(plain(2, 1.5), 1, 2), [crowded]);
  const smt = {
    cores: [
      [0, 4],
      [1, 5],
      [2, 6],
      [3, 7],
    ],
    quota: none,
  };
  t.same(place(smt, 2, 2), [pinned(0, 1), pinned(2, 3)], 'one sibling of each core');
  t.same(place(smt, 2, 4), [pinned(0, 4, 1, 5), pinned(2, 6, 3, 7)], 'all siblings, when asked for');
  t.same([place(smt, 1, 6), place(smt, 1, 9)], [[free], [crowded]]);
  t.same(place({ ...smt, quota: 4 }, 1, 4), [pinned(0, 1, 2, 3)]);
  t.same(place({ ...smt, quota: 3 }, 1, 4), [crowded]);
});
