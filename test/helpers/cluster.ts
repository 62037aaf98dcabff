/** Jobs of several nodes: one ndsrun on each of several hosts, and how they all end. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { JobResult, Session } from './gang.ts';
import { Hosts } from './hosts.ts';
import { fixture, Running } from './launcher.ts';
import { secondsSince } from './site.ts';

/** A node's place in a job, and where its token lies. */
export interface NodePlace {
  readonly node: number;
  readonly numNodes: number;
  readonly token: string;
}

/** How a node learns its place: by options, or by variables. */
export interface Told {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export type Way = (place: NodePlace) => Told;

const port = '29500';
const leader = '10.77.0.1';

/** By options, with node 0's launcher at another port than other jobs. */
export function atPort(masterPort: string): Way {
  return ({ node, numNodes, token }) => ({
    args: [
      `--nnodes=${numNodes}`,
      `--node-rank=${node}`,
      `--master-addr=${leader}`,
      `--master-port=${masterPort}`,
      `--token-file=${token}`,
    ],
  });
}

export const byOptions = atPort(port);

/** By variables; the addresses of Slurm and LeaderWorkerSet are host names. */
export const ways: Readonly<Record<string, Way>> = {
  'PET_*': ({ node, numNodes, token }) => ({
    env: {
      PET_NNODES: String(numNodes),
      PET_NODE_RANK: String(node),
      PET_MASTER_ADDR: leader,
      PET_MASTER_PORT: port,
      PET_RDZV_BACKEND: 'static',
      NDS_TOKEN_FILE: token,
    },
  }),
  'NNODES and NODE_RANK': ({ node, numNodes, token }) => ({
    env: { NNODES: String(numNodes), NODE_RANK: String(node), MASTER_ADDR: leader, MASTER_PORT: port, NDS_TOKEN_FILE: token },
  }),
  Slurm: ({ node, numNodes, token }) => ({
    env: {
      SLURM_JOB_ID: '7',
      SLURM_NNODES: String(numNodes),
      SLURM_STEP_NUM_NODES: String(numNodes),
      SLURM_NODEID: String(node),
      SLURM_PROCID: String(node),
      SLURM_JOB_NODELIST: `host-[0-${numNodes - 1}]`,
      SLURM_STEP_NODELIST: `host-[0-${numNodes - 1}]`,
      SLURM_STEP_TASKS_PER_NODE: `1(x${numNodes})`,
      NDS_TOKEN_FILE: token,
    },
  }),
  LeaderWorkerSet: ({ node, numNodes, token }) => ({
    env: { LWS_GROUP_SIZE: String(numNodes), LWS_WORKER_INDEX: String(node), LWS_LEADER_ADDRESS: 'host-0', NDS_TOKEN_FILE: token },
  }),
  'Indexed Job': ({ node, numNodes, token }) => ({
    env: { JOB_COMPLETION_INDEX: String(node), NNODES: String(numNodes), MASTER_ADDR: 'host-0', NDS_TOKEN_FILE: token },
  }),
};

export interface NodeOptions {
  readonly way?: Way;
  /** As it claims; the host's index when left out. */
  readonly node?: number;
  readonly numNodes?: number;
  /** Secret of the job. */
  readonly token?: string;
  readonly options?: readonly string[];
}

export class Cluster {
  readonly hosts: Hosts;

  private constructor(hosts: Hosts) {
    this.hosts = hosts;
  }

  static async open(t: Pick<Test, 'teardown'>, numHosts: number, delayMs: number | null = null): Promise<Cluster> {
    const hosts = await Hosts.open(numHosts, delayMs);
    t.teardown(() => hosts.close());
    return new Cluster(hosts);
  }

  /** Starts the launcher of one node on a host. */
  start(host: number, args: readonly string[], { way = byOptions, options = [], ...place }: NodeOptions = {}): Running {
    const at = this.hosts.get(host);
    const token = join(at.tmp, 'token');
    writeFileSync(at.fromHere(token), `${place.token ?? 'the token of the job under test'}\n`, { mode: 0o600 });
    const told = way({ node: place.node ?? host, numNodes: place.numNodes ?? this.hosts.length, token });
    const env = { OMP_NUM_THREADS: '1', ...told.env };
    return new Running([...(told.args ?? []), ...options, ...args], { env, place: at });
  }

  /** Starts a job on all hosts, the last node first; by host. */
  startAll(args: readonly string[], options: NodeOptions = {}): Running[] {
    const indices = Array.from({ length: this.hosts.length }, (_, i) => i);
    const started = new Map(indices.reverse().map((host) => [host, this.start(host, args, options)]));
    return indices.reverse().map((host) => started.get(host) as Running);
  }

  /** Runs sessions, each node with its own copy of the job. Throws with the output of a node that fails. */
  async runJob(ranksPerNode: number, sessions: readonly Session[], way: Way): Promise<JobResult> {
    const { tmp } = this.hosts.get(0);
    const [input, out] = [join(tmp, 'job.json'), join(tmp, 'out.json')];
    for (let i = 0; i < this.hosts.length; i++) writeFileSync(this.hosts.get(i).fromHere(input), JSON.stringify(sessions));
    const nodes = this.startAll([`--nproc-per-node=${ranksPerNode}`, fixture('job.ts'), input, out], { way });
    for (const [i, node] of nodes.entries()) {
      const { code, stdout, stderr } = await node.ended();
      if (code !== 0) throw new Error(`node ${i} ended with ${code}:\n${stdout}${stderr}`);
    }
    return JSON.parse(readFileSync(this.hosts.get(0).fromHere(out), 'utf8'));
  }

  /** All nodes end with the code within `seconds` from `start`, each says all that is expected, and nothing is left. */
  async expectEnds(t: Test, nodes: readonly Running[], code: number, expected: ExpectedEnd): Promise<void> {
    for (const [i, node] of nodes.entries()) {
      const ended = await node.ended();
      if (ended.code !== code) t.comment(`node ${i}:\n${ended.stdout.slice(-4000)}${ended.stderr.slice(-4000)}`);
      t.equal(ended.code, code, `exit code of node ${i}`);
      for (const pattern of expected.stderr) t.match(ended.stderr, pattern, `standard error of node ${i}`);
    }
    const seconds = secondsSince(expected.start);
    t.ok(seconds < busyFactor * expected.seconds, `${seconds} s`);
    t.same(await this.hosts.leaks(), []);
  }
}

/** Bounds are those of a quiet machine; beside other tests everything takes some times as long. */
const busyFactor = 4;

export interface ExpectedEnd {
  /** Of every node. */
  readonly stderr: readonly RegExp[];
  /** The moment of the fault, by `performance.now()`. */
  readonly start: number;
  readonly seconds: number;
}
