/** The secrets of a job are in no command line, environment or file of it. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Cluster } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture, type Running } from '../helpers/launcher.ts';
import { markedProcesses } from '../helpers/leaks.ts';

const script = fixture('secrets.ts');
const token = 'a token that nobody may read';
const seconds = 10;

/** Of every rank, once all have said them. */
async function secretsOf(nodes: readonly Running[], ranksPerNode: number): Promise<string[]> {
  const several = new RegExp(`(?:secrets \\[.*\\]\n[\\s\\S]*){${ranksPerNode}}`);
  for (const node of nodes) await node.printed(several);
  return nodes.flatMap(({ stdout }) => [...stdout.matchAll(/secrets (\[.*\])/g)].flatMap(([, json = '']) => JSON.parse(json)));
}

/** Paths of regular files below a folder, of the tests' own none. */
function filesBelow(folder: string): string[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => !/^(token$|tsx-)/.test(name));
  return paths.map((name) => join(folder, name)).filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile());
}

t.test('two nodes: neither token nor keys', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const nodes = cluster.startAll(['--nproc-per-node=2', script], { token });
  const secrets = await secretsOf(nodes, 2);
  t.equal(new Set(secrets).size, 5, 'a secret key of each rank, and one key of the collectives');
  const pids = markedProcesses(cluster.hosts.mark);
  // Each launcher with its ranks.
  t.ok(pids.length >= 6, `${pids.length} processes`);
  const places = [
    ...pids.flatMap((pid) => ['cmdline', 'environ'].map((name) => `/proc/${pid}/${name}`)),
    ...[0, 1].flatMap((host) => ['/mnt', '/dev/shm'].flatMap((folder) => filesBelow(cluster.hosts.get(host).fromHere(folder)))),
  ];
  for (const path of places) {
    const bytes = readFileSync(path);
    for (const secret of [token, ...secrets]) {
      if (bytes.includes(secret)) t.fail(`a secret is in ${path}`);
    }
  }
  nodes[0]?.child.kill('SIGTERM');
  await cluster.expectEnds(t, nodes, 0, { stderr: [], start: performance.now(), seconds });
  for (const { stderr } of nodes) t.notOk([token, ...secrets].some((secret) => stderr.includes(secret)));
});

t.test('one node has none', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 1);
  const job = cluster.start(0, ['--nproc-per-node=2', script], { way: () => ({}) });
  t.same(await secretsOf([job], 2), []);
  job.child.kill('SIGTERM');
  await cluster.expectEnds(t, [job], 0, { stderr: [], start: performance.now(), seconds });
});
