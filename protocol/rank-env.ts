/** A rank's environment variables, written by the launcher and read by the rank. */
import { NdsError } from './errors.ts';

/** A rank's gang and launcher. */
export interface RankEnv {
  readonly rank: number;
  readonly localRank: number;
  readonly worldSize: number;
  /** Ranks on this node. */
  readonly localWorldSize: number;
  /** Index of this node, and number of nodes. */
  readonly groupRank: number;
  readonly groupWorldSize: number;
  readonly roleName: string;
  readonly masterAddr: string;
  readonly masterPort: number;
  readonly restartCount: number;
  readonly maxRestarts: number;
  readonly runId: string;
  /** Folder, mode 0700, for sockets and failure records; the launcher removes it. */
  readonly runDir: string;
  /** Inherited descriptor of an unlinked file shared by all ranks of this node. */
  readonly shmFd: number;
  /** Inherited descriptor; end-of-file means that the launcher is gone. */
  readonly watchFd: number;
  /** Inherited socket to the launcher; see `control.ts`. */
  readonly controlFd: number;
  /** Inherited descriptor of the memory in which this node's ranks tell their launcher what they are doing. */
  readonly stateFd: number;
  readonly launcherPid: number;
  readonly startupTimeoutMs: number;
  readonly stepTimeoutMs: number;
  readonly shutdownTimeoutMs: number;
  readonly failureTimeoutMs: number;
  /** Absolute path of the trace that the launcher joins from the ranks' parts; empty = none. */
  readonly traceFile: string;
  /** Absolute path of the plan log that rank 0 appends to; empty = none. */
  readonly recordFile: string;
}

type Field = readonly [key: keyof RankEnv, variable: string, minimum: number | 'text' | 'path'];

/** A number is its minimum; a `text` must not be empty, a `path` may be. */
const fields: readonly Field[] = [
  ['rank', 'RANK', 0],
  ['localRank', 'LOCAL_RANK', 0],
  ['worldSize', 'WORLD_SIZE', 1],
  ['localWorldSize', 'LOCAL_WORLD_SIZE', 1],
  ['groupRank', 'GROUP_RANK', 0],
  ['groupWorldSize', 'GROUP_WORLD_SIZE', 1],
  ['roleName', 'ROLE_NAME', 'text'],
  ['masterAddr', 'MASTER_ADDR', 'text'],
  ['masterPort', 'MASTER_PORT', 1],
  ['restartCount', 'TORCHELASTIC_RESTART_COUNT', 0],
  ['maxRestarts', 'TORCHELASTIC_MAX_RESTARTS', 0],
  ['runId', 'TORCHELASTIC_RUN_ID', 'text'],
  ['runDir', 'NDS_RUN_DIR', 'text'],
  ['shmFd', 'NDS_SHM_FD', 0],
  ['watchFd', 'NDS_WATCH_FD', 0],
  ['controlFd', 'NDS_CONTROL_FD', 0],
  ['stateFd', 'NDS_STATE_FD', 0],
  ['launcherPid', 'NDS_LAUNCHER_PID', 1],
  ['startupTimeoutMs', 'NDS_STARTUP_TIMEOUT_MS', 1],
  ['stepTimeoutMs', 'NDS_STEP_TIMEOUT_MS', 1],
  ['shutdownTimeoutMs', 'NDS_SHUTDOWN_TIMEOUT_MS', 1],
  ['failureTimeoutMs', 'NDS_FAILURE_TIMEOUT_MS', 1],
  ['traceFile', 'NDS_TRACE_FILE', 'path'],
  ['recordFile', 'NDS_RECORD_FILE', 'path'],
];

/** Pid of the rank, which its children inherit although they are no ranks; empty until the rank sets it. */
const rankPidVariable = 'NDS_RANK_PID';

/** Environment variables, as in `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** One rank's variables, torchrun's and ours. */
export function writeRankEnv(rank: RankEnv): Record<string, string> {
  const env: Record<string, string> = { ROLE_RANK: String(rank.rank), ROLE_WORLD_SIZE: String(rank.worldSize), [rankPidVariable]: '' };
  for (const [key, variable] of fields) env[variable] = String(rank[key]);
  return env;
}

/**
 * This process's rank; `null` when `ndsrun` started it neither directly nor through a program that is no rank itself.
 *
 * @throws NdsError `ERR_USAGE` when a variable is missing, malformed or contradicts another.
 */
export function readRankEnv(env: Environment = process.env, pid: number = process.pid): RankEnv | null {
  if (env['NDS_RUN_DIR'] === undefined) return null;
  const rankPid = env[rankPidVariable];
  if (rankPid && rankPid !== String(pid)) return null;
  const values: Partial<Record<keyof RankEnv, string | number>> = {};
  for (const field of fields) values[field[0]] = readField(env, field);
  const rank = values as unknown as RankEnv;
  checkBelow('RANK', rank.rank, 'WORLD_SIZE', rank.worldSize);
  checkBelow('LOCAL_RANK', rank.localRank, 'LOCAL_WORLD_SIZE', rank.localWorldSize);
  checkBelow('GROUP_RANK', rank.groupRank, 'GROUP_WORLD_SIZE', rank.groupWorldSize);
  return rank;
}

/** Marks this process as the rank, so that its children are not mistaken for it. */
export function claimRank(env: Record<string, string | undefined> = process.env, pid: number = process.pid): void {
  env[rankPidVariable] = String(pid);
}

function readField(env: Environment, [, variable, minimum]: Field): string | number {
  const text = env[variable];
  if (minimum === 'path') return text ?? '';
  if (text === undefined || text === '') throw new NdsError('ERR_USAGE', `Expected a value for ${variable} under ndsrun but received none`);
  if (minimum === 'text') return text;
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < minimum) {
    throw new NdsError('ERR_USAGE', `Expected an integer of at least ${minimum} for ${variable} but received "${text}"`);
  }
  return value;
}

function checkBelow(name: string, value: number, limitName: string, limit: number): void {
  if (value >= limit) throw new NdsError('ERR_USAGE', `Expected ${name} below ${limitName} = ${limit} but received ${value}`);
}
