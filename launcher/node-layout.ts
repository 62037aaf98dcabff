/** This node's index and the address of node 0: their sources by precedence, and how conflicts are resolved. */
import { NdsError } from '../protocol/errors.ts';
import type { Environment } from '../protocol/rank-env.ts';
import type { OptionValues } from './command-line.ts';
import type { launchSpecs } from './option-specs.ts';

/** This node's place in the job. */
export interface NodeLayout {
  readonly nnodes: number;
  readonly nodeRank: number;
  readonly masterAddr: string | null;
  readonly masterPort: number | null;
  /** Source of the number of nodes, for messages. */
  readonly source: string;
}

/** One level of precedence whose values are options. */
export interface NodeSource {
  readonly name: string;
  readonly values: OptionValues<typeof launchSpecs>;
}

interface Level {
  readonly name: string;
  readonly nnodes?: number | undefined;
  readonly nodeRank?: number | undefined;
  readonly masterAddr?: string | undefined;
  readonly masterPort?: number | undefined;
}

/**
 * Resolves the layout from the options' levels (strongest first), then LeaderWorkerSet, Indexed Job and Slurm.
 *
 * @throws NdsError `ERR_USAGE` when two sources of one level disagree or the node's index is out of range.
 */
export function nodeLayout(sources: readonly NodeSource[], env: Environment): NodeLayout {
  const standalone = sources.find(({ values }) => values.standalone !== undefined)?.values.standalone ?? false;
  const levels = sources.map(optionLevel);
  if (standalone) checkStandalone(levels[0]);
  // With --standalone only the command line's address counts.
  const active = standalone ? levels.slice(0, 1) : [...levels, ...clusterLevels(env)];
  const counted = active.find((level) => level.nnodes !== undefined);
  const nnodes = counted?.nnodes ?? 1;
  // A cluster's index does not apply to a job of one node.
  const ranked = active.find((level) => level.nodeRank !== undefined && (nnodes > 1 || levels.includes(level)));
  if (nnodes > 1 && ranked === undefined) {
    throw new NdsError('ERR_USAGE', `Expected --node-rank with ${nnodes} nodes (from ${counted?.name}) but received none`);
  }
  const nodeRank = ranked?.nodeRank ?? 0;
  if (nodeRank >= nnodes) {
    throw new NdsError('ERR_USAGE', `Expected a node rank below --nnodes ${nnodes} but received ${nodeRank} (from ${ranked?.name})`);
  }
  const port = active.find((level) => level.masterPort !== undefined)?.masterPort ?? null;
  if (nnodes > 1 && port === 0) throw new NdsError('ERR_USAGE', 'Expected a port that all nodes know for --master-port but received 0');
  return {
    nnodes,
    nodeRank,
    masterAddr: active.find((level) => level.masterAddr !== undefined)?.masterAddr ?? null,
    masterPort: port === 0 ? null : port,
    source: standalone ? '--standalone' : (counted?.name ?? 'the default'),
  };
}

function optionLevel({ name, values }: NodeSource): Level {
  const endpoint = values['rdzv-endpoint'];
  const agreed = <T>(option: string, a: T | undefined, b: T | null | undefined): T | undefined => {
    if (a !== undefined && b !== undefined && b !== null && a !== b) {
      throw new NdsError('ERR_USAGE', `Expected rdzv-endpoint and ${option} (${name}) to agree but received ${b} and ${a}`);
    }
    return a ?? b ?? undefined;
  };
  return {
    name,
    nnodes: values.nnodes,
    nodeRank: values['node-rank'],
    masterAddr: agreed('master-addr', values['master-addr'], endpoint?.host),
    masterPort: agreed('master-port', values['master-port'], endpoint?.port),
  };
}

function checkStandalone(cli: Level | undefined): void {
  if (cli?.nnodes !== undefined && cli.nnodes > 1) {
    throw new NdsError('ERR_USAGE', `Expected one node with --standalone but received --nnodes ${cli.nnodes}`);
  }
  if (cli?.nodeRank !== undefined && cli.nodeRank > 0) {
    throw new NdsError('ERR_USAGE', `Expected node 0 with --standalone but received --node-rank ${cli.nodeRank}`);
  }
}

function clusterLevels(env: Environment): Level[] {
  return [
    {
      name: 'LeaderWorkerSet (LWS_*)',
      nnodes: clusterNumber(env, 'LWS_GROUP_SIZE'),
      nodeRank: clusterNumber(env, 'LWS_WORKER_INDEX'),
      masterAddr: env['LWS_LEADER_ADDRESS'],
    },
    { name: 'Indexed Job (JOB_COMPLETION_INDEX)', nodeRank: clusterNumber(env, 'JOB_COMPLETION_INDEX') },
    {
      name: 'Slurm (SLURM_*)',
      // A Slurm step may span fewer nodes than its allocation.
      nnodes: clusterNumber(env, 'SLURM_STEP_NUM_NODES') ?? clusterNumber(env, 'SLURM_NNODES'),
      nodeRank: clusterNumber(env, 'SLURM_NODEID'),
    },
  ];
}

function clusterNumber(env: Environment, variable: string): number | undefined {
  const text = env[variable];
  if (text === undefined || text === '') return undefined;
  if (!/^\d+$/.test(text)) throw new NdsError('ERR_USAGE', `Expected a number for ${variable} but received "${text}"`);
  return Number(text);
}
