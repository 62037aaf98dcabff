/** The launch plan: one command and one environment per rank. Pure, given the machine's resources. */
import { resolve } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import { type Environment, type RankEnv, writeRankEnv } from '../protocol/rank-env.ts';
import type { LaunchOptions, PlacedOptions } from './options.ts';

/** Resources of the machine. */
export interface Machine {
  readonly cores: number;
  /** Identifiers of the GPUs that a rank sees, as `CUDA_VISIBLE_DEVICES` has them. */
  readonly gpus: readonly string[];
  readonly usable: UsableDevices;
}

/** Devices that ranks compute on, by local rank; the caller knows which backends were built. */
export interface UsableDevices {
  /** Names of the devices. */
  readonly devices: readonly string[];
  /** Why there are none; null where there are some, or none are wanted. */
  readonly reason: string | null;
}

/** How a rank's Node is started; the caller knows where the package lies. */
export interface RankRuntime {
  /** Node's options before the script: loader, preload, conditions. */
  readonly nodeArgs: readonly string[];
}

/** Resources that the launcher opened for its ranks. */
export interface GangResources {
  /** Number of times that the gang was started anew. */
  readonly epoch: number;
  readonly runDir: string;
  readonly runId: string;
  readonly masterAddr: string;
  readonly masterPort: number;
  readonly launcherPid: number;
}

/** Descriptors that a rank inherits after its standard streams. */
export const shmFd = 3;
export const watchFd = 4;
export const controlFd = 5;
export const stateFd = 6;

export interface RankPlan {
  readonly rank: number;
  readonly localRank: number;
  readonly command: string;
  readonly args: readonly string[];
  /** Variables added to the launcher's own. */
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Number of ranks on this node. A program run with `--no-node` is assumed to use every GPU that it sees.
 *
 * @throws NdsError `ERR_USAGE` when GPUs are asked for and there are none.
 */
export function localWorldSize({ nprocPerNode, noNode }: LaunchOptions, { cores, gpus, usable }: Machine): number {
  if (nprocPerNode === 'cpu') return cores;
  const numGpus = noNode ? gpus.length : usable.devices.length;
  if (nprocPerNode === 'auto') return Math.max(1, numGpus);
  if (nprocPerNode !== 'gpu') return nprocPerNode;
  if (numGpus > 0) return numGpus;
  const received = gpus.length === 0 ? 'a machine without' : `${gpus.length} that cannot be used: ${usable.reason ?? 'none is wanted'}`;
  throw new NdsError('ERR_USAGE', `Expected a GPU for --nproc-per-node gpu but received ${received}`);
}

/** Messages about GPUs before ranks start: the device of each rank, or why present GPUs stay idle. */
export function describeGpus(options: LaunchOptions, machine: Machine): readonly string[] {
  const { gpus, usable } = machine;
  if (options.noNode) return [];
  const { devices, reason } = usable;
  if (devices.length === 0) {
    if (gpus.length === 0 || reason === null) return [];
    return [`warning: ${gpus.length === 1 ? 'the GPU is' : `${gpus.length} GPUs are`} not used: ${reason} (see ndsrun doctor)`];
  }
  const indices = Array.from({ length: localWorldSize(options, machine) }, (_, localRank) => localRank);
  return indices.map((localRank) => {
    const index = localRank % devices.length;
    return `local rank ${localRank} has GPU ${gpus[index] ?? index}, ${devices[index]}`;
  });
}

/** The plan of every rank on this node. */
export function planRanks(
  options: PlacedOptions,
  machine: Machine,
  runtime: RankRuntime,
  gang: GangResources,
  env: Environment,
): readonly RankPlan[] {
  const size = localWorldSize(options, machine);
  checkLocalRanks(options, size);
  const command = options.noNode ? options.script : process.execPath;
  const args = options.noNode ? options.scriptArgs : [...runtime.nodeArgs, options.script, ...options.scriptArgs];
  return Array.from({ length: size }, (_, localRank) => {
    const rankEnv = rankEnvOf(options, gang, localRank, size);
    const variables = {
      ...writeRankEnv(rankEnv),
      ...threadEnv(machine, size, env),
      ...gpuEnv(options, machine, localRank),
      ...isaEnv(options),
    };
    return { rank: rankEnv.rank, localRank, command, args, env: variables };
  });
}

function rankEnvOf(options: PlacedOptions, gang: GangResources, localRank: number, size: number): RankEnv {
  return {
    rank: options.nodeRank * size + localRank,
    localRank,
    worldSize: options.nnodes * size,
    localWorldSize: size,
    groupRank: options.nodeRank,
    groupWorldSize: options.nnodes,
    roleName: options.roleName,
    restartCount: gang.epoch,
    maxRestarts: options.maxRestarts,
    shmFd,
    watchFd,
    controlFd,
    stateFd,
    startupTimeoutMs: options.startupTimeoutMs,
    stepTimeoutMs: options.stepTimeoutMs,
    shutdownTimeoutMs: options.shutdownTimeoutMs,
    failureTimeoutMs: options.failureTimeoutMs,
    traceFile: options.trace === null ? '' : resolve(options.trace),
    recordFile: options.record === null ? '' : resolve(options.record),
    runId: gang.runId,
    runDir: gang.runDir,
    masterAddr: gang.masterAddr,
    masterPort: gang.masterPort,
    launcherPid: gang.launcherPid,
  };
}

function threadEnv(machine: Machine, size: number, env: Environment): Record<string, string> {
  return env['OMP_NUM_THREADS'] ? {} : { OMP_NUM_THREADS: String(Math.max(1, Math.floor(machine.cores / size))) };
}

function gpuEnv(options: LaunchOptions, machine: Machine, localRank: number): Record<string, string> {
  if (!options.virtualLocalRank) return {};
  const gpu = machine.gpus[localRank];
  if (gpu === undefined) {
    throw new NdsError('ERR_USAGE', `Expected a GPU for each rank with --virtual-local-rank but received ${machine.gpus.length}`);
  }
  return { CUDA_VISIBLE_DEVICES: gpu };
}

function isaEnv({ isa }: PlacedOptions): Record<string, string> {
  return isa === null ? {} : { NDS_ISA: isa };
}

function checkLocalRanks(options: LaunchOptions, size: number): void {
  const check = (ranks: Iterable<number>, name: string): void => {
    for (const rank of ranks) {
      if (rank >= size) throw new NdsError('ERR_USAGE', `Expected local ranks below ${size} for --${name} but received ${rank}`);
    }
  };
  check(options.localRanksFilter ?? [], 'local-ranks-filter');
  if (options.redirects instanceof Map) check(options.redirects.keys(), 'redirects');
  if (options.tee instanceof Map) check(options.tee.keys(), 'tee');
}
