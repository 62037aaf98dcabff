/** Hangs of jobs of several nodes: what is one, what is none, and that every console names the rank. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { root } from '../../scripts/files.mjs';
import { atPort, Cluster, type NodeOptions } from '../helpers/cluster.ts';
import { needsHosts } from '../helpers/hosts.ts';
import { fixture, type Running } from '../helpers/launcher.ts';
import { repeats } from '../helpers/scale.ts';
import { randomMoment } from '../helpers/site.ts';

const model = join(root, 'examples', 'models', 'story-180k');
const ofEightHeads = join(root, 'examples', 'models', 'story-5m');
/** A thousand times what a step of this model takes, and most of what a busy machine may hold one up. */
const stepTimeoutMs = 2000;
const options = ['--nproc-per-node=1', `--step-timeout=${stepTimeoutMs / 1000}`, '--failure-timeout=1'];
/** From the hang to the end of all nodes. */
const seconds = stepTimeoutMs / 1000 + 10;

/** Rank 1, the other node's, does what the mode says. */
function start(cluster: Cluster, mode: string, value: string | number = '', place: NodeOptions = {}): [Running, Running] {
  return cluster.startAll([...options, fixture('hang.ts'), model, mode, String(value)], place) as [Running, Running];
}

t.test('a rank that is stopped, on either node', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const nodes = cluster.startAll([...options, fixture('lost-rank.ts'), model]) as [Running, Running];
    const stopped = i % 2;
    const pid = Number((await (nodes[stopped] as Running).printed(/ready \d (\d+)\n/))[1]);
    await nodes[0].printed(/generated/);
    await randomMoment(50);
    process.kill(pid, 'SIGSTOP');
    const stderr = [
      /no rank has made progress for 1 s\n.*rank 0 .*\n.*rank 1 /,
      new RegExp(`rank ${stopped} is stopped by a signal`),
      // Also between two steps, where the script waits for nobody.
      /rank [01] (.*, step \d+|is .*idle after step \d+)/,
      new RegExp(`\\[ndsrun\\] rank ${stopped} hung, on host-${stopped} `),
    ];
    await cluster.expectEnds(t, nodes, 75, { stderr, start: performance.now(), seconds });
  }
});

t.test('of two ranks on each node, the one that is stopped is named, not the leaders that wait for its node', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const args = ['--nproc-per-node=2', '--step-timeout=4', '--failure-timeout=1', fixture('lost-rank.ts'), ofEightHeads];
    const nodes = cluster.startAll(args) as [Running, Running];
    // Beside the leader of node 1, and that leader.
    const stopped = 3 - (i % 2);
    const pid = Number((await nodes[1].printed(new RegExp(`ready ${stopped} (\\d+)\n`)))[1]);
    await nodes[0].printed(/generated/);
    await randomMoment(50);
    process.kill(pid, 'SIGSTOP');
    const waits = (rank: number, awaited: number) => new RegExp(`rank ${rank} waits in .*, step \\d+, for rank ${awaited}\n`);
    const stderr = [
      /no rank has made progress for 2 s\n/,
      waits(1, 0),
      waits(0, 2),
      waits(5 - stopped, stopped),
      new RegExp(`received none for 4 s: rank ${stopped} is stopped by a signal`),
      new RegExp(`\\[ndsrun\\] rank ${stopped} hung, on host-1 `),
    ];
    await cluster.expectEnds(t, nodes, 75, { stderr, start: performance.now(), seconds: 4 + 10 });
  }
});

t.test('a rank whose JavaScript is blocked', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const go = `/mnt/go-${i}`;
    const nodes = start(cluster, 'blocks its loop', go);
    await nodes[0].printed(/generated/);
    writeFileSync(cluster.hosts.get(1).fromHere(go), '');
    const stderr = [/rank 1 hung, on host-1 .*\n.*received none for 2 s: rank 1 has not begun step \d+ \[ERR_STEP_TIMEOUT\]/];
    await cluster.expectEnds(t, nodes, 75, { stderr, start: performance.now(), seconds });
  }
});

t.test('a rank that skips a collective', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (let i = repeats(20); i > 0; i--) {
    const nodes = start(cluster, 'skips a collective');
    const stderr = [/rank \d failed first: exit code \d+ in step \d+, on host-\d/];
    // From the start of the job.
    await cluster.expectEnds(t, nodes, 78, { stderr, start: performance.now(), seconds: 30 });
  }
});

t.test('what is no hang, though it takes ten times the step timeout', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  const begin = performance.now();
  const modes = ['idles', 'computes', 'loads late'] as const;
  const jobs = modes.map((mode, i) => start(cluster, mode, 10 * stepTimeoutMs, { way: atPort(String(29_500 + i)) }));
  await Promise.all(jobs.flat().map((node) => node.ended()));
  for (const [i, nodes] of jobs.entries()) {
    await cluster.expectEnds(t, nodes, 0, { stderr: [], start: begin, seconds: 10 * seconds });
    for (const { stderr } of nodes) t.notMatch(stderr, /no rank has made progress/, modes[i] ?? '');
  }
});

t.test('a launcher that is stopped is lost: the other node ends, and nothing goes on behind it', needsHosts, async (t) => {
  const cluster = await Cluster.open(t, 2);
  for (const stopped of [0, 1]) {
    const nodes = cluster.startAll([...options, '--node-timeout=3', fixture('lost-rank.ts'), model]) as [Running, Running];
    await nodes[0].printed(/generated/);
    const start = performance.now();
    nodes[stopped]?.child.kill('SIGSTOP');
    const other = nodes[1 - stopped] as Running;
    const { code, stderr } = await other.ended();
    t.equal(code, 69, stderr);
    t.match(stderr, new RegExp(`node ${stopped}|host-${stopped}`));
    t.ok(performance.now() - start < 1000 * (3 + seconds));
    nodes[stopped]?.child.kill('SIGCONT');
    t.not((await nodes[stopped]?.ended())?.code, 0);
    t.same(await cluster.hosts.leaks(), []);
  }
});
