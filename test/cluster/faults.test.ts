/** What ends a job of several nodes, how soon, and what every node says of it. */
import { once } from 'node:events';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { Cluster } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture, isAlive, type Running } from '../helpers/launcher.ts';
import { leftAfter } from '../helpers/leaks.ts';
import { repeats } from '../helpers/scale.ts';
import { randomMoment } from '../helpers/site.ts';

const act = fixture('act.ts');
const model = join(root, 'examples', 'models', 'story-180k');
const idle = [fixture('idle.ts'), model, '0'];
/** For all nodes to be gone after a failure. */
const goneSeconds = 10;

const endless = ['--nproc-per-node=1', fixture('lost-rank.ts'), model];

/** Two nodes of one rank that generate without end. */
async function startEndless(cluster: Cluster, options: readonly string[] = []): Promise<[Running, Running]> {
  const nodes = cluster.startAll(endless, { options, numNodes: 2 }) as [Running, Running];
  await nodes[0].printed(/generated/);
  return nodes;
}

t.test('a rank that exits with 42 on any node: so does the job, with one text on every console', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const failing = i % 4;
    const actions = [0, 1, 2, 3].map((rank) => `${rank}=${rank === failing ? 'exit-soon:42' : 'wait'}`);
    const start = performance.now();
    const nodes = cluster.startAll(['--nproc-per-node=2', act, ...actions]);
    const named = new RegExp(`rank ${failing} failed first: exit code 42, on host-${failing < 2 ? 0 : 1}`);
    await cluster.expectEnds(t, nodes, 42, { stderr: [named], start, seconds: goneSeconds });
    const [first, second] = nodes.map(({ stderr }) =>
      stderr.split('\n').filter((line) => line.startsWith('[ndsrun]') && !/according to|listens at/.test(line)),
    );
    t.same(second, first);
  }
});

t.test('ranks that are killed in mid-step', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const nodes = await startEndless(cluster);
    const pid = Number((await (nodes[i % 2] as Running).printed(/ready \d (\d+)\n/))[1]);
    await randomMoment(50);
    const start = performance.now();
    process.kill(pid, i % 4 < 2 ? 'SIGKILL' : 'SIGSEGV');
    const stderr = [new RegExp(`rank ${i % 2} failed first: killed by SIG(KILL|SEGV)( in step \\d+, .*)?, on host-${i % 2}`)];
    await cluster.expectEnds(t, nodes, i % 4 < 2 ? 137 : 139, { stderr, start, seconds: goneSeconds });
  }
});

t.test('a rank that is killed while it loads', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const nodes = cluster.startAll(endless) as [Running, Running];
    const killed = i % 2;
    const pid = Number((await (nodes[killed] as Running).printed(/ready \d (\d+)\n/))[1]);
    // From the first import to the first tokens.
    await randomMoment(200);
    const start = performance.now();
    process.kill(pid, 'SIGKILL');
    const stderr = [new RegExp(`rank ${killed} failed first: killed by SIGKILL.*, on host-${killed}`)];
    await cluster.expectEnds(t, nodes, 137, { stderr, start, seconds: goneSeconds });
  }
});

t.test('a launcher that is killed: the other node ends with 69 and names the node', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (const killed of [0, 1]) {
    const nodes = await startEndless(cluster);
    const pid = Number((await (nodes[killed] as Running).printed(/ready \d (\d+)\n/))[1]);
    const start = performance.now();
    nodes[killed]?.child.kill('SIGKILL');
    t.same(await leftAfter(() => (isAlive(pid) ? [`rank ${pid}`] : []), 1000), []);
    await nodes[killed]?.ended();
    const others = nodes.filter((_, node) => node !== killed);
    // Its run folder is left to the next launcher there.
    for (const node of others) {
      const { code, stderr } = await node.ended();
      t.equal(code, 69, stderr);
      t.match(stderr, new RegExp(`node ${killed}|host-${killed}`));
    }
    t.ok(performance.now() - start < goneSeconds * 1000);
    await cluster.start(killed, [fixture('write.ts')], { way: () => ({}) }).ended();
    t.same(await cluster.hosts.leaks(), []);
  }
});

t.test('a signal to one launcher stops all nodes', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (const signalled of [0, 1]) {
    const nodes = await startEndless(cluster);
    const start = performance.now();
    nodes[signalled]?.child.kill('SIGTERM');
    await cluster.expectEnds(t, nodes, 0, { stderr: [], start, seconds: goneSeconds });
  }
});

t.test('a node that never comes is named after --rdzv-timeout', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const start = performance.now();
  const nodes = cluster.startAll([act, '0=wait'], { numNodes: 3, options: ['--nproc-per-node=1', '--rdzv-timeout=3'] });
  await cluster.expectEnds(t, nodes, 69, { stderr: [/node 2/], start, seconds: 3 + goneSeconds });
});

t.test('nodes may come late, in any order', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const early = cluster.start(1, ['--nproc-per-node=1', ...idle]);
  await delay(1500);
  const late = cluster.start(0, ['--nproc-per-node=1', ...idle]);
  await cluster.expectEnds(t, [late, early], 0, { stderr: [], start: performance.now(), seconds: 60 });
  t.match(late.stdout, /the same/);
});

t.test('nodes that disagree end with 78, and every one shows the difference', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 3);
  const args = (...options: string[]) => [...options, act, '0=wait'];
  const differ = async (nodes: Running[], what: RegExp) => {
    await cluster.expectEnds(t, nodes, 78, { stderr: [what], start: performance.now(), seconds: goneSeconds });
  };
  const three = (second: string[], place: { node?: number } = {}) => [
    cluster.start(0, args('--nproc-per-node=1')),
    cluster.start(1, args('--nproc-per-node=1')),
    cluster.start(2, second, place),
  ];
  await differ(three(args('--nproc-per-node=1'), { node: 1 }), /node.rank 1|node 1/);
  await differ(three(args('--nproc-per-node=1', '--step-timeout=7')), /step-timeout.*60.*7|step-timeout.*7.*60/);
  await differ(three(args('--nproc-per-node=2')), /1 on node 0.*2 on node 2|2 on node 2.*1 on node 0/);
  const file = join(root, 'package.json');
  const other = cluster.hosts.get(2).fromHere('/mnt/package.json');
  writeFileSync(other, readFileSync(file, 'utf8').replace(/"version": ".*?"/, '"version": "9.8.7"'));
  cluster.hosts.cover(2, file, '/mnt/package.json');
  await differ(three(args('--nproc-per-node=1')), /9\.8\.7/);
});

t.test('another model under the same name ends with 78 on every node', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const copy = cluster.hosts.get(1).fromHere('/mnt/model');
  cpSync(model, copy, { recursive: true });
  const weights = join(copy, 'model.safetensors');
  const bytes = readFileSync(weights);
  // The first byte of the first tensor's data.
  const at = 8 + Number(bytes.readBigUInt64LE());
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(weights, bytes);
  cluster.hosts.cover(1, model, '/mnt/model');
  const start = performance.now();
  const nodes = cluster.startAll(['--nproc-per-node=1', ...idle]);
  await cluster.expectEnds(t, nodes, 78, { stderr: [/model/], start, seconds: 2 * goneSeconds });
});

/** Waits until a job that generates without end has generated again, what was on its way not counted. */
async function goesOn(node: Running): Promise<void> {
  const count = () => node.stdout.match(/generated/g)?.length ?? 0;
  const enough = count() + 3;
  while (count() < enough) {
    await Promise.race([once(node.child.stdout as NodeJS.ReadableStream, 'data'), node.ended()]);
    if (node.child.exitCode !== null) throw new Error(`ended: ${node.stdout}${node.stderr}`);
  }
}

t.test('a link that is cut for 2 s delays a job', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const nodes = await startEndless(cluster);
  cluster.hosts.cut(1);
  await delay(2000);
  cluster.hosts.mend(1);
  await goesOn(nodes[0]);
  nodes[0].child.kill('SIGTERM');
  await cluster.expectEnds(t, nodes, 0, { stderr: [], start: performance.now(), seconds: goneSeconds });
});

t.test('a link that is cut for good ends every node, which names the other', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const nodes = await startEndless(cluster, ['--node-timeout=3']);
  const start = performance.now();
  cluster.hosts.cut(1);
  for (const [i, node] of nodes.entries()) {
    const { code, stderr } = await node.ended();
    t.equal(code, 69, stderr);
    t.match(stderr, new RegExp(`node ${1 - i}|host-${1 - i}`));
  }
  t.ok(performance.now() - start < (3 + goneSeconds) * 1000);
  t.same(await cluster.hosts.leaks(), []);
});
