/** Faults of jobs of several nodes that need no model: survivors, second signals, restarts, other jobs, much output. */
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { atPort, Cluster } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture, type Running } from '../helpers/launcher.ts';
import { leftAfter } from '../helpers/leaks.ts';
import { isFull, repeats } from '../helpers/scale.ts';

const act = fixture('act.ts');
const epochs = fixture('epochs.ts');
const twoRanks = '--nproc-per-node=2';
/** For all nodes to be gone. */
const seconds = 10;
const allWait = ['0=wait', '1=wait', '2=wait', '3=wait'];

/** Waits for ranks 0 … 3 of two nodes. */
async function allReady(nodes: readonly Running[]): Promise<void> {
  for (const rank of [0, 1, 2, 3]) await nodes[rank >> 1]?.printed(new RegExp(`ready ${rank} `));
}

async function stop(t: Test, cluster: Cluster, nodes: readonly Running[]): Promise<void> {
  nodes[0]?.child.kill('SIGTERM');
  await cluster.expectEnds(t, nodes, 0, { stderr: [], start: performance.now(), seconds });
}

t.test('survivors that ignore SIGTERM, or are stuck in a native call, are killed on every node', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const start = performance.now();
    const nodes = cluster.startAll([twoRanks, act, '0=blocked', '1=wait', '2=exit-soon:42', '3=stubborn']);
    await cluster.expectEnds(t, nodes, 42, { stderr: [/rank 2 failed first: exit code 42/], start, seconds });
  }
});

t.test('a second SIGINT to either launcher kills the ranks of both', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const stubborn = ['0=stubborn', '1=blocked', '2=stubborn', '3=stubborn'];
    const nodes = cluster.startAll([twoRanks, '--shutdown-timeout=1000', act, ...stubborn]);
    await allReady(nodes);
    nodes[i % 2]?.child.kill('SIGINT');
    for (const rank of [0, 2, 3]) await nodes[rank >> 1]?.printed(new RegExp(`${rank} got SIGINT`));
    const start = performance.now();
    nodes[i % 2]?.child.kill('SIGINT');
    await cluster.expectEnds(t, nodes, 130, { stderr: [], start, seconds });
  }
});

const restarts = ['--max-restarts=2', '--restart-backoff=0'];

t.test('a crash loop ends after two restarts', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const rank = 1 + (i % 3);
    const crashes = [0, 1, 2].map((epoch) => `${rank}.${epoch}=exit:${42 + epoch}`);
    const start = performance.now();
    const nodes = cluster.startAll([twoRanks, ...restarts, epochs, ...crashes, 'loads']);
    // The time of three starts with it.
    await cluster.expectEnds(t, nodes, 44, { stderr: [/not restarted: restart 2 of 2 was the last/], start, seconds: 3 * seconds });
    const starts = nodes.flatMap(({ stdout }) => [...stdout.matchAll(/start (\d\.\d) /g)].map(([, name]) => name));
    const followers = [0, 1, 2].flatMap((epoch) => [1, 2, 3].map((follower) => `${follower}.${epoch}`));
    t.same(starts.sort(), ['0.0', ...followers].sort());
  }
});

t.test('SIGKILL of rank 0 with restarts: the script starts again on every rank', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const start = performance.now();
    const nodes = cluster.startAll([twoRanks, ...restarts, epochs, '0.0=kill:SIGKILL', 'ends=1']);
    const stderr = [/rank 0 was lost \(killed by SIGKILL\).*: restart 1 of 2 in 0 s, the whole gang starts its script again/];
    await cluster.expectEnds(t, nodes, 0, { stderr, start, seconds: 2 * seconds });
    const starts = nodes.map(({ stdout }) => [...stdout.matchAll(/start (\d\.\d) /g)].map(([, name]) => name).sort());
    t.same(starts, [
      ['0.0', '0.1', '1.0', '1.1'],
      ['2.0', '2.1', '3.0', '3.1'],
    ]);
  }
});

t.test('two jobs of the same nodes at other ports do not meet', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const going = cluster.startAll([twoRanks, act, ...allWait]);
    const failing = cluster.startAll([twoRanks, act, '0=wait', '1=wait', '2=wait', '3=exit-soon:42'], { way: atPort('29501') });
    for (const node of failing) t.equal((await node.ended()).code, 42, node.stderr);
    await allReady(going);
    await stop(t, cluster, going);
  }
});

t.test('a job at the port of a running one is refused, and the running one goes on', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const going = cluster.startAll([twoRanks, act, ...allWait]);
    await allReady(going);
    const start = performance.now();
    for (const node of cluster.startAll([twoRanks, act, ...allWait])) {
      t.not((await node.ended()).code, 0);
      t.match(node.stderr, /29500/);
      t.notMatch(node.stdout, /ready/);
    }
    t.ok(performance.now() - start < 1000 * seconds);
    await stop(t, cluster, going);
  }
});

t.test('a gigabyte that neither console reads stalls no rank and takes no memory', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const mebibytes = isFull ? 512 : 64;
  const done = '/mnt/done';
  const write = `yes ${'x'.repeat(1021)} | head -c ${mebibytes}M; touch ${done}; exec sleep 1000`;
  const nodes = cluster.startAll(['--nproc-per-node=1', '--no-node', 'sh', '-c', write]);
  for (const { child } of nodes) child.stdout?.pause();
  const isDone = (host: number) => {
    try {
      return readFileSync(cluster.hosts.get(host).fromHere(done), 'utf8') === '';
    } catch {
      return false;
    }
  };
  for (const [host, { child }] of nodes.entries()) {
    await leftAfter(() => (isDone(host) ? [] : ['writes']), 600_000);
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
    t.match(status, /^Name:\s+node/);
    const memoryMiB = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024;
    t.ok(memoryMiB < 400, `${memoryMiB} MiB`);
  }
  nodes[0]?.child.kill('SIGTERM');
  for (const { child } of nodes) child.stdout?.removeAllListeners('data').resume();
  await cluster.expectEnds(t, nodes, 0, { stderr: [], start: performance.now(), seconds: 6 * seconds });
});
