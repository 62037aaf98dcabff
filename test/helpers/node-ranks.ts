/** The ranks of several nodes on loopback, each node with a folder and shared memory of its own; the launchers' part is played here. */
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Test } from 'tap';
import { curveKeyPair } from 'zeromq';
import { runtimeFor } from '../../bin/runtime.ts';
import { StateMemory } from '../../launcher/state-memory.ts';
import { ControlReader, encodeControl, type ToLauncher } from '../../protocol/control.ts';
import { readRankError, writeFailure, writeRankEnd } from '../../protocol/failure.ts';
import { type RankEnv, writeRankEnv } from '../../protocol/rank-env.ts';
import type { JobResult, Session } from './gang.ts';
import { spawnTied } from './tied-process.ts';

const address = '127.0.0.1';
const script = new URL('../fixtures/scripts/job.ts', import.meta.url).pathname;
const [shmFd, watchFd, controlFd, stateFd] = [3, 4, 5, 6];

export interface NodesResult {
  /** Of rank 0, if it came to its end. */
  readonly job: JobResult | null;
  /** `[worldSize]` */
  readonly exitCodes: readonly (number | null)[];
  /** `[worldSize]` the error that ended each rank; null for none. */
  readonly errors: readonly ({ readonly code: string | null; readonly message: string } | null)[];
  readonly stderr: string;
}

/**
 * Runs the sessions on nodes, whose ranks start in `cwds[node]`.
 * @param envs - `[numNodes]` variables of each node
 */
export async function runOnNodes(
  t: Test,
  ranksPerNode: number,
  sessions: readonly Session[],
  cwds: readonly string[],
  envs: readonly Record<string, string>[] = [],
): Promise<NodesResult> {
  const folder = mkdtempSync(join(tmpdir(), 'nds-nodes-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const [input, out] = [join(folder, 'job.json'), join(folder, 'out.json')];
  writeFileSync(input, JSON.stringify(sessions));
  const worldSize = cwds.length * ranksPerNode;
  const keys = Array.from({ length: worldSize }, () => curveKeyPair());
  const runDirs = cwds.map((_, node) => join(folder, `node-${node}`));
  for (const runDir of runDirs) mkdirSync(runDir, { mode: 0o700 });
  const states = runDirs.map(() => StateMemory.open(ranksPerNode));
  t.teardown(() => states.forEach((state) => state.close()));
  const ranks = keys.map((pair, rank) => {
    const node = Math.floor(rank / ranksPerNode);
    const runDir = runDirs[node] as string;
    const shm = openSync(join(runDir, 'shm'), 'a+');
    const env = { ...process.env, ...writeRankEnv(envOf(rank, ranksPerNode, cwds.length, runDir)), ...envs[node] };
    const args = [...runtimeFor(script).nodeArgs, script, input, out];
    const stdio = ['ignore', 'ignore', 'pipe', shm, 'pipe', 'pipe', states[node]?.fd] as const;
    const child = spawnTied(process.execPath, args, { cwd: cwds[node], env, stdio: [...stdio] });
    closeSync(shm);
    const nodes = { addresses: cwds.map(() => address), localAddr: address, commKey: '5a'.repeat(16) };
    const curve = { ...pair, publicKeys: keys.map(({ publicKey }) => publicKey) };
    const control = child.stdio[controlFd] as unknown as Duplex;
    control.write(encodeControl({ type: 'gang', gang: { epoch: 0, runDir, shmPath: null, nodes: { ...nodes, curve } } }));
    control.on('error', () => {});
    return { child, control, runDir, stderr: text(child.stderr as NonNullable<typeof child.stderr>) };
  });
  const published: ToLauncher[] = [];
  for (const { control } of ranks) {
    const reader = ControlReader.ofLauncher();
    control.on('data', (chunk) => {
      for (const message of reader.push(chunk)) {
        if (message.type !== 'publish') continue;
        published.push(message);
        for (const other of ranks) other.control.write(encodeControl({ ...message, type: 'published' }));
      }
    });
  }
  let hasFailed = false;
  const exitCodes = await Promise.all(
    ranks.map(async ({ child, runDir }, rank) => {
      const [exitCode, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
      for (const other of runDirs) writeRankEnd(other, rank);
      if (exitCode !== 0 && !hasFailed) {
        hasFailed = true;
        const { code = null, message = null } = readRankError(runDir, rank) ?? {};
        for (const other of runDirs) writeFailure(other, { rank, exitCode, signal, code, message });
        for (const other of ranks) other.child.kill('SIGTERM');
      }
      return exitCode;
    }),
  );
  const stderr = (await Promise.all(ranks.map(({ stderr }) => stderr))).join('');
  const errors = ranks.map(({ runDir }, rank) => readRankError(runDir, rank));
  return { job: exitCodes[0] === 0 ? JSON.parse(readFileSync(out, 'utf8')) : null, exitCodes, errors, stderr };
}

function envOf(rank: number, ranksPerNode: number, numNodes: number, runDir: string): RankEnv {
  return {
    rank,
    localRank: rank % ranksPerNode,
    worldSize: numNodes * ranksPerNode,
    localWorldSize: ranksPerNode,
    groupRank: Math.floor(rank / ranksPerNode),
    groupWorldSize: numNodes,
    roleName: 'default',
    masterAddr: address,
    masterPort: 1,
    restartCount: 0,
    maxRestarts: 0,
    runId: 'nodes',
    runDir,
    shmFd,
    watchFd,
    controlFd,
    stateFd,
    launcherPid: process.pid,
    startupTimeoutMs: 600_000,
    stepTimeoutMs: 60_000,
    shutdownTimeoutMs: 25_000,
    failureTimeoutMs: 3000,
    traceFile: '',
    recordFile: '',
  };
}
