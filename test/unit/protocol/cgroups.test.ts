/** Cgroups of both versions: their folders, quotas of processors, and out-of-memory kills. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { outOfMemoryKills } from '../../../launcher/machine.ts';
import { type CgroupSource, cgroupsOf, cpuQuota } from '../../../protocol/cgroups.ts';

/** A tree of files below `root`, and the list of a process's cgroups. */
function source(t: Test, list: string, files: Record<string, string> = {}): CgroupSource {
  const dir = t.testdir({ list });
  const root = join(dir, 'cgroup');
  for (const [path, text] of Object.entries({ '.keep': '', ...files })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return { listPath: join(dir, 'list'), root };
}

function foldersIn(controller: string, from: CgroupSource): [number, ...string[]][] {
  return cgroupsOf(controller, from).map(({ version, folders }) => [
    version,
    ...folders.map((folder) => folder.slice(from.root.length) || '/'),
  ]);
}

t.test('folders from the process up', async (t) => {
  const nested = source(t, '0::/pod/box\n', { 'pod/box/cpu.max': '', 'cgroup.procs': '' });
  t.same(foldersIn('cpu', nested), [[2, '/pod/box', '/pod', '/']]);
  const namespaced = source(t, '0::/\n', { 'cpu.max': '' });
  t.same(foldersIn('cpu', namespaced), [[2, '/']], 'a container with a namespace of its own');
  const foreign = source(t, '0::/host/docker/abc/sub\n', { 'sub/cpu.max': '' });
  t.same(foldersIn('cpu', foreign), [[2, '/sub', '/']], "the path of the host, of which the container's part is mounted");
  const escaping = source(t, '0::/../../other\n');
  t.same(foldersIn('cpu', escaping), [[2, '/']], 'a cgroup outside of what is mounted');
  const hybrid = source(t, '5:cpu,cpuacct:/a\n4:memory:/b\n1:name=systemd:/c\n0::/d\n', {
    'cpu,cpuacct/a/x': '',
    'memory/b/x': '',
    'unified/cgroup.procs': '',
    'unified/d/x': '',
  });
  t.same(foldersIn('cpu', hybrid), [
    [1, '/cpu,cpuacct/a', '/cpu,cpuacct'],
    [2, '/unified/d', '/unified'],
  ]);
  t.same(foldersIn('memory', hybrid)[0], [1, '/memory/b', '/memory']);
  t.same(cgroupsOf('cpu', { listPath: '/none', root: '/none' }), [], 'no Linux');
});

t.test('the tightest quota of processors', async (t) => {
  const two = (own: string, above: string) => cpuQuota(source(t, '0::/pod/box\n', { 'pod/box/cpu.max': own, 'pod/cpu.max': above }));
  const none = Number.POSITIVE_INFINITY;
  t.same(
    [two('max 100000\n', 'max 100000\n'), two('150000 100000\n', 'max 100000\n'), two('max 100000\n', '250000 100000\n')],
    [none, 1.5, 2.5],
  );
  t.same([two('800000 100000\n', '50000 100000\n'), two('', ''), two('nonsense', '0 0')], [0.5, none, none]);
  const one = (own: [string, string], above: [string, string]) =>
    cpuQuota(
      source(t, '3:cpu:/pod/box\n0::/\n', {
        'cpu/pod/box/cpu.cfs_quota_us': own[0],
        'cpu/pod/box/cpu.cfs_period_us': own[1],
        'cpu/pod/cpu.cfs_quota_us': above[0],
        'cpu/pod/cpu.cfs_period_us': above[1],
      }),
    );
  t.equal(one(['-1\n', '100000\n'], ['-1\n', '100000\n']), none);
  t.equal(one(['400000\n', '100000\n'], ['150000\n', '50000\n']), 3);
  t.equal(cpuQuota(source(t, '')), none);
});

t.test('out-of-memory kills of the own cgroup, else of the machine', async (t) => {
  const kills = (list: string, files: Record<string, string> = {}): number | undefined => {
    const from = source(t, list, { vmstat: 'pgfault 9\noom_kill 7\n', ...files });
    return outOfMemoryKills(from, join(from.root, 'vmstat'))?.count;
  };
  t.equal(kills('0::/a\n', { 'a/memory.events': 'low 0\noom 3\noom_kill 2\noom_group_kill 0\n' }), 2);
  t.equal(kills('4:memory:/a\n0::/\n', { 'memory/a/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 5\n' }), 5);
  t.equal(kills('4:memory:/a\n', { 'memory/a/memory.oom_control': 'under_oom 0\n' }), 7, 'an old kernel');
  t.equal(kills('0::/\n'), 7, 'the root of all');
  t.equal(outOfMemoryKills({ listPath: '/none', root: '/none' }, '/none'), null);
});
