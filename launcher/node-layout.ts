/** This node's index and the address of node 0: their sources by precedence, and how conflicts are resolved. */
import { NdsError } from '../protocol/errors.ts';
import type { Environment } from '../protocol/rank-env.ts';
import type { OptionValues } from './command-line.ts';
import { nodeCount } from './option-parsers.ts';
import type { launchSpecs } from './option-specs.ts';
import { checkTasksPerNode, slurmMasterAddr } from './slurm.ts';

/** torchrun's. */
const defaultMasterPort = 29500;

/** This node's place in the job. */
export interface NodeLayout {
  readonly nnodes: number;
  /** Null = node 0 gives it out in order of arrival, and is the one that the master address belongs to. */
  readonly nodeRank: number | null;
  /** Given on more than one node. */
  readonly masterAddr: string | null;
  /** Given on more than one node. */
  readonly masterPort: number | null;
  /** Sources of the number of nodes and of this node's index, for messages. */
  readonly source: string;
  readonly rankSource: string;
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
 * Resolves the layout from the options' levels (strongest first), then `NNODES`, `NODE_RANK`, `MASTER_ADDR` and
 * `MASTER_PORT`, LeaderWorkerSet, Indexed Job and Slurm. On one node only the options count.
 *
 * @throws NdsError `ERR_USAGE` when two sources of one level disagree, the node's index is missing or out of range, or
 * the address of node 0 is missing.
 */
export function nodeLayout(sources: readonly NodeSource[], env: Environment): NodeLayout {
  const standalone = sources.find(({ values }) => values.standalone !== undefined)?.values.standalone ?? false;
  const levels = sources.map(optionLevel);
  if (standalone) checkStandalone(levels[0]);
  // With --standalone only the command line's address counts.
  const ofOptions = standalone ? levels.slice(0, 1) : levels;
  const all = standalone ? ofOptions : [...levels, ...environmentLevels(env)];
  const counted = all.find((level) => level.nnodes !== undefined);
  const source = standalone ? '--standalone' : (counted?.name ?? 'the default');
  const nnodes = counted?.nnodes ?? 1;
  const active = nnodes > 1 ? all : ofOptions;
  const ranked = active.find((level) => level.nodeRank !== undefined);
  const isByArrival = sources.find(({ values }) => values['rdzv-backend'] !== undefined)?.values['rdzv-backend'] === 'c10d';
  if (nnodes > 1 && ranked === undefined && !isByArrival) {
    throw new NdsError('ERR_USAGE', `Expected --node-rank with ${nnodes} nodes (from ${source}) but received none${srunHint(source)}`);
  }
  const nodeRank = ranked?.nodeRank ?? (nnodes > 1 ? null : 0);
  if (nodeRank !== null && nodeRank >= nnodes) {
    throw new NdsError('ERR_USAGE', `Expected a node rank below --nnodes ${nnodes} but received ${nodeRank} (from ${ranked?.name})`);
  }
  if (ranked?.name === slurmName) checkTasksPerNode(env);
  const rankSource = ranked?.name ?? (nodeRank === null ? 'the order of arrival' : 'the default');
  return { nnodes, nodeRank, ...master(active, nnodes), source, rankSource };
}

function master(active: readonly Level[], nnodes: number): Pick<NodeLayout, 'masterAddr' | 'masterPort'> {
  const masterAddr = active.find((level) => level.masterAddr !== undefined)?.masterAddr ?? null;
  const port = active.find((level) => level.masterPort !== undefined)?.masterPort;
  if (nnodes === 1) return { masterAddr, masterPort: port === 0 ? null : (port ?? null) };
  if (masterAddr === null) {
    throw new NdsError('ERR_USAGE', `Expected --master-addr, the address of node 0, with ${nnodes} nodes but received none`);
  }
  if (port === 0) throw new NdsError('ERR_USAGE', 'Expected a port that all nodes know for --master-port but received 0');
  return { masterAddr, masterPort: port ?? defaultMasterPort };
}

/** What is printed of the layout before ranks start; null where nothing was said of nodes. */
export function describeLayout({ nnodes, nodeRank, masterAddr, masterPort, source, rankSource }: NodeLayout): string | null {
  if (nnodes === 1) return source === 'the default' ? null : `one node, according to ${source}`;
  const index = nodeRank === null ? 'a node' : `node ${nodeRank}`;
  const sources = source === rankSource ? source : `${rankSource} and ${source}`;
  return `${index} of ${nnodes}, according to ${sources}; node 0 is at ${masterAddr}, port ${masterPort}`;
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

const slurmName = 'Slurm (SLURM_*)';

function srunHint(source: string): string {
  return source === slurmName ? ' (srun starts ndsrun on each node)' : '';
}

/** Read where needed only: a malformed variable of a weaker level is no error. */
function environmentLevels(env: Environment): Level[] {
  return [
    {
      name: 'NNODES and NODE_RANK',
      get nnodes() {
        return env['NNODES'] ? nodeCount(env['NNODES'], 'NNODES') : undefined;
      },
      get nodeRank() {
        return numberOf(env, 'NODE_RANK');
      },
      masterAddr: env['MASTER_ADDR'] || undefined,
      get masterPort() {
        return numberOf(env, 'MASTER_PORT', 65535);
      },
    },
    {
      name: 'LeaderWorkerSet (LWS_*)',
      get nnodes() {
        return numberOf(env, 'LWS_GROUP_SIZE');
      },
      get nodeRank() {
        return numberOf(env, 'LWS_WORKER_INDEX');
      },
      masterAddr: env['LWS_LEADER_ADDRESS'] || undefined,
    },
    {
      name: 'Indexed Job (JOB_COMPLETION_INDEX)',
      get nodeRank() {
        return numberOf(env, 'JOB_COMPLETION_INDEX');
      },
    },
    {
      name: slurmName,
      get nnodes() {
        // A step may span fewer nodes than its allocation.
        return numberOf(env, 'SLURM_STEP_NUM_NODES') ?? numberOf(env, 'SLURM_NNODES');
      },
      get nodeRank() {
        return numberOf(env, 'SLURM_NODEID');
      },
      get masterAddr() {
        return slurmMasterAddr(env);
      },
    },
  ];
}

function numberOf(env: Environment, variable: string, maximum: number = Number.MAX_SAFE_INTEGER): number | undefined {
  const text = env[variable];
  if (!text) return undefined;
  if (!/^\d+$/.test(text) || Number(text) > maximum) {
    throw new NdsError('ERR_USAGE', `Expected a number for ${variable} but received "${text}"`);
  }
  return Number(text);
}
