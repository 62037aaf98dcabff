/** A job of two nodes on this machine: how its launchers start, restart and end together. */

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { freePort } from '../helpers/free-port.ts';
import { allGone, fixture, Running, type StartOptions } from '../helpers/launcher.ts';
import { cannotMount, mounted } from '../helpers/mounts.ts';

const epochs = fixture('epochs.ts');
const act = fixture('act.ts');

/** Starts launchers of two ranks each, of two nodes. */
async function launchers(t: Test, args: readonly string[]): Promise<(node: 0 | 1, options?: StartOptions) => Running> {
  const token = join(t.testdir(), 'token');
  writeFileSync(token, randomBytes(32).toString('hex'), { mode: 0o600 });
  const address = ['--master-addr=127.0.0.1', `--master-port=${await freePort()}`, `--token-file=${token}`];
  return (node, options) => new Running(['--nnodes=2', `--node-rank=${node}`, '--nproc-per-node=2', ...address, ...args], options);
}

async function twoNodes(t: Test, args: readonly string[]): Promise<[Running, Running]> {
  const start = await launchers(t, args);
  return [start(0), start(1)];
}

async function allReady(nodes: readonly Running[]): Promise<void> {
  for (const [node, running] of nodes.entries()) {
    for (const rank of [2 * node, 2 * node + 1]) await running.printed(new RegExp(`ready ${rank} `));
  }
}

const pidsOf = (nodes: readonly Running[]) =>
  nodes.flatMap(({ stdout }) => [...stdout.matchAll(/(?:start|ready) [\d.]+ (\d+)/g)].map(([, pid]) => Number(pid)));

/** Both ends, and that nothing is left. */
async function ended(t: Test, nodes: readonly [Running, Running]) {
  const ends = [await nodes[0].ended(), await nodes[1].ended()] as const;
  await allGone(pidsOf(nodes));
  t.same(
    nodes.map((node) => node.leftovers()),
    [[], []],
  );
  return ends;
}

const report = (stderr: string) =>
  stderr.split('\n').filter((line) => /failed first|could not go on|exit code|was lost|not restarted/.test(line));

t.test('a failure on one node is told in one text on both', async (t) => {
  const nodes = await twoNodes(t, [epochs, '3.0=exit:42']);
  const [zero, one] = await ended(t, nodes);
  t.same([zero.code, one.code], [42, 42]);
  t.match(zero.stderr, /rank 3 failed first: exit code 42, on \S+ \(node 1\)/);
  t.same(report(one.stderr), report(zero.stderr));
});

t.test('a node without room for shared memory ends the job, with its text on both', { skip: cannotMount }, async (t) => {
  const tmp = mkdtempSync(join(tmpdir(), 'nds-small-'));
  t.teardown(() => rmSync(tmp, { recursive: true }));
  const start = await launchers(t, [epochs]);
  const prefix = [...mounted('/dev/shm', 64), ...mounted(tmp, 256)];
  const [zero, one] = await ended(t, [start(0), start(1, { prefix, env: { TMPDIR: tmp } })]);
  t.same([zero.code, one.code], [70, 70]);
  t.match(zero.stderr, /node 1 could not go on: Expected 1\.0 MiB for the shared memory of 2 ranks but received ENOSPC/);
  t.same(report(one.stderr), report(zero.stderr));
});

t.test('a lost rank of either node: all but rank 0 start anew', async (t) => {
  const options = ['--max-restarts=2', '--restart-backoff=0'];
  const nodes = await twoNodes(t, [...options, epochs, '3.0=exit:42', '1.1=kill:SIGKILL', 'ends=2', 'loads']);
  const [zero, one] = await ended(t, nodes);
  t.same([zero.code, one.code], [0, 0]);
  const starts = (stdout: string) => [...stdout.matchAll(/start (\d\.\d)/g)].map(([, name]) => name).sort();
  t.same(starts(zero.stdout), ['0.0', '1.0', '1.1', '1.2']);
  t.same(starts(one.stdout), ['2.0', '2.1', '2.2', '3.0', '3.1', '3.2']);
  t.same(
    [...zero.stdout.matchAll(/lost .*/g)].map(([line]) => line),
    ['lost 3 42', 'lost 1 SIGKILL'],
  );
  t.same(report(one.stderr), report(zero.stderr));
});

t.test("a node's launcher that is killed", async (t) => {
  for (const lost of [0, 1] as const) {
    const nodes = await twoNodes(t, [act, '0=wait', '1=wait', '2=wait', '3=stuck']);
    await allReady(nodes);
    nodes[lost].child.kill('SIGKILL');
    const survivor = await nodes[1 - lost]?.ended();
    t.equal(survivor?.code, 69);
    t.match(survivor?.stderr, new RegExp(`node ${lost} at 127\\.0\\.0\\.1 was lost: `));
    t.notMatch(survivor?.stderr, /was lost: .* on 127/, 'its place is said once');
    await nodes[lost].ended();
    await allGone(pidsOf(nodes));
    t.same(nodes[1 - lost]?.leftovers(), []);
  }
});

t.test('a signal to any launcher ends the job on all nodes', async (t) => {
  for (const [node, signal, code] of [
    [0, 'SIGTERM', 0],
    [1, 'SIGTERM', 0],
    [1, 'SIGINT', 130],
  ] as const) {
    const nodes = await twoNodes(t, [act, '0=wait', '1=wait', '2=wait', '3=wait']);
    await allReady(nodes);
    nodes[node].child.kill(signal);
    const [zero, one] = await ended(t, nodes);
    t.same([zero.code, one.code], [code, code], `${signal} to node ${node}`);
    t.match([zero, one][1 - node]?.stderr, new RegExp(`node ${node} \\(\\S+\\) ends the job: it received ${signal}`));
  }
});

t.test('a signal while a node waits for the others', async (t) => {
  const zero = (await launchers(t, [act]))(0);
  while (!zero.stderr.includes('listens')) await once(zero.child.stderr as NodeJS.ReadableStream, 'data');
  zero.child.kill('SIGINT');
  t.equal((await zero.ended()).code, 130);
});
