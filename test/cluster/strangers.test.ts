/** Strangers in the network of a job of several nodes do not disturb it, and nothing of it listens where it need not. */
import { join } from 'node:path';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { Cluster } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture, type Running } from '../helpers/launcher.ts';
import { spawnTied } from '../helpers/tied-process.ts';

const model = join(root, 'examples', 'models', 'story-180k');
const endless = ['--nproc-per-node=1', fixture('lost-rank.ts'), model];

/** Two nodes that generate without end, and a third host. */
async function startJob(t: Parameters<typeof Cluster.open>[0]): Promise<{ cluster: Cluster; nodes: Running[] }> {
  const cluster = await Cluster.open(t, 3);
  const nodes = [1, 0].map((host) => cluster.start(host, endless, { numNodes: 2 })).reverse();
  await nodes[0]?.printed(/generated/);
  return { cluster, nodes };
}

const numGenerated = ({ stdout }: Running) => stdout.match(/generated/g)?.length ?? 0;

t.test('a job listens at the addresses of its nodes only', needsHosts, async (t) => {
  const { cluster, nodes } = await startJob(t);
  for (const host of [0, 1]) {
    const { address } = cluster.hosts.get(host);
    const listeners = cluster.hosts.listeners(host);
    t.ok(host === 1 || listeners.includes('10.77.0.1:29500'), listeners.join(' '));
    for (const listener of listeners) t.match(listener, new RegExp(`^(${address}|127\\.0\\.0\\.1):`));
  }
  nodes[0]?.child.kill('SIGTERM');
  await cluster.expectEnds(t, nodes, 0, { stderr: [], start: performance.now(), seconds: 10 });
});

t.test('a job of one node listens at loopback only', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 1);
  const args = ['--nproc-per-node=2', fixture('lost-rank.ts'), model];
  const job = cluster.start(0, args, { way: () => ({}) });
  await job.printed(/generated/);
  for (const listener of cluster.hosts.listeners(0)) t.match(listener, /^127\.0\.0\.1:/);
  job.child.kill('SIGTERM');
  await cluster.expectEnds(t, [job], 0, { stderr: [], start: performance.now(), seconds: 10 });
});

for (const [mode, seconds] of [
  ['noise', 3],
  ['crowd', 3],
  ['slow-reader', 3],
  ['unknown-key', 3],
] as const) {
  t.test(`a stranger: ${mode}`, needsHosts, async (t) => {
    const { cluster, nodes } = await startJob(t);
    const [node] = nodes as [Running];
    const addresses = [0, 1].flatMap((host) => cluster.hosts.listeners(host)).filter((address) => address.startsWith('10.'));
    const stranger = cluster.hosts.get(2);
    const [command = '', ...enter] = stranger.enter(root);
    // Ten thousand sockets need as many descriptors.
    const run = ['sh', '-c', 'ulimit -n 20000; exec "$@"', 'sh', 'env', '-u', 'NODE_OPTIONS', process.execPath, fixture('intruder.ts')];
    const before = numGenerated(node);
    const child = spawnTied(command, [...enter, ...run, mode, String(seconds), ...addresses], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...stranger.mark },
    });
    let output = '';
    child.stdout?.on('data', (data) => {
      output += data;
    });
    await new Promise((resolve) => child.on('close', resolve));
    t.match(output, /done/);
    t.ok(numGenerated(node) > before, 'the job went on meanwhile');
    nodes[0]?.child.kill('SIGTERM');
    await cluster.expectEnds(t, nodes, 0, { stderr: [], start: performance.now(), seconds: 10 });
  });
}

t.test('a node with another token is turned away, and the right one is waited for', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 3);
  const options = { numNodes: 2 };
  const first = cluster.start(0, endless, options);
  const wrong = cluster.start(2, [...endless], { ...options, node: 1, token: 'some other token', options: ['--rdzv-timeout=5'] });
  t.not((await wrong.ended()).code, 0);
  t.match(wrong.stderr, /token/);
  const second = cluster.start(1, endless, options);
  await first.printed(/generated/);
  first.child.kill('SIGTERM');
  await cluster.expectEnds(t, [first, second], 0, { stderr: [], start: performance.now(), seconds: 10 });
});
