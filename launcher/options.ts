/** Arguments and environment → `LaunchOptions`: pure, and the only place that decides precedence. */
import { NdsError } from '../protocol/errors.ts';
import type { Environment } from '../protocol/rank-env.ts';
import { type OptionValues, parseCommandLine, parseEnvironment } from './command-line.ts';
import { type NodeLayout, type NodeSource, nodeLayout } from './node-layout.ts';
import type { StreamMap } from './option-parsers.ts';
import { launchShape, launchSpecs } from './option-specs.ts';
import { notedSpecs, noteOf } from './torchrun-specs.ts';

/** Durations are in milliseconds; `null` = not given. */
export interface LaunchOptions extends NodeLayout {
  readonly nprocPerNode: number | 'auto' | 'gpu' | 'cpu';
  readonly runId: string | null;
  readonly roleName: string;
  readonly localAddr: string | null;
  readonly maxRestarts: number;
  readonly logDir: string | null;
  readonly redirects: StreamMap;
  readonly tee: StreamMap;
  /** Local ranks shown on the console; `null` = all. */
  readonly localRanksFilter: readonly number[] | null;
  readonly logLinePrefixTemplate: string;
  readonly startupTimeoutMs: number;
  readonly stepTimeoutMs: number;
  readonly shutdownTimeoutMs: number;
  readonly failureTimeoutMs: number;
  readonly report: string | null;
  readonly trace: string | null;
  readonly record: string | null;
  readonly noNode: boolean;
  readonly virtualLocalRank: boolean;
  readonly dryRun: boolean;
  readonly script: string;
  readonly scriptArgs: readonly string[];
  /** Printed before any rank starts. */
  readonly warnings: readonly string[];
}

export type LaunchValues = OptionValues<typeof launchSpecs>;

const noStreams = { stdout: false, stderr: false };

/**
 * Parses a whole `ndsrun [options] script [args…]` command line.
 *
 * @throws NdsError `ERR_USAGE` for an invalid, unknown or contradictory option, and for one that needs several nodes or
 * restarts.
 */
export function parseLaunchOptions(args: readonly string[], env: Environment): LaunchOptions {
  const { options, operands } = parseCommandLine(launchShape, args);
  const [script, ...scriptArgs] = operands;
  if (script === undefined) throw new NdsError('ERR_USAGE', 'Expected a script to run but received none (see ndsrun --help)');
  return resolveLaunchOptions(options, env, script, scriptArgs);
}

/** Merges the command line with `NDS_*`, `PET_*` and the cluster's variables, in decreasing precedence. */
export function resolveLaunchOptions(cli: LaunchValues, env: Environment, script: string, scriptArgs: readonly string[]): LaunchOptions {
  const sources: NodeSource[] = [
    { name: 'the command line', values: cli },
    { name: 'NDS_* variables', values: parseEnvironment(launchSpecs, 'NDS_', env) },
    { name: 'PET_* variables', values: parseEnvironment(launchSpecs, 'PET_', env) },
  ];
  const pick = <K extends keyof LaunchValues>(name: K): LaunchValues[K] | undefined =>
    sources.find(({ values }) => values[name] !== undefined)?.values[name];
  const options: LaunchOptions = {
    ...nodeLayout(sources, env),
    nprocPerNode: pick('nproc-per-node') ?? 'auto',
    runId: pick('rdzv-id') ?? null,
    roleName: pick('role') ?? 'default',
    localAddr: pick('local-addr') ?? null,
    maxRestarts: pick('max-restarts') ?? 0,
    logDir: pick('log-dir') ?? null,
    redirects: pick('redirects') ?? noStreams,
    tee: pick('tee') ?? noStreams,
    localRanksFilter: pick('local-ranks-filter') ?? null,
    logLinePrefixTemplate: pick('log-line-prefix-template') ?? '[rank ${rank}] ',
    startupTimeoutMs: pick('startup-timeout') ?? 600_000,
    stepTimeoutMs: pick('step-timeout') ?? 60_000,
    shutdownTimeoutMs: pick('shutdown-timeout') ?? 25_000,
    failureTimeoutMs: pick('failure-timeout') ?? 3000,
    report: pick('report') ?? null,
    trace: pick('trace') ?? null,
    record: pick('record') ?? null,
    noNode: pick('no-node') ?? false,
    virtualLocalRank: pick('virtual-local-rank') ?? false,
    dryRun: pick('dry-run') ?? false,
    script,
    scriptArgs,
    warnings: [
      ...incomingRankWarnings(env),
      ...noteOf(Object.fromEntries(Object.keys(notedSpecs).map((name) => [name, pick(name as keyof typeof notedSpecs)]))),
    ],
  };
  refuseUnavailable(options, pick('rdzv-timeout') !== undefined);
  return options;
}

/** Warnings of `RANK` and `WORLD_SIZE`, which are never read: some platforms put the node's index there. */
function incomingRankWarnings(env: Environment): string[] {
  const found = ['RANK', 'WORLD_SIZE'].filter((name) => env[name] !== undefined).map((name) => `${name}=${env[name]}`);
  return found.length === 0 ? [] : [`ignored ${found.join(' and ')} from the environment: ndsrun sets these for its ranks`];
}

function refuseUnavailable(options: LaunchOptions, hasRendezvousTimeout: boolean): void {
  if (options.trace !== null && options.trace === options.record) {
    throw new NdsError('ERR_USAGE', `Expected two files for --trace and --record but received ${options.trace} for both`);
  }
  const notYet = (what: string): NdsError => new NdsError('ERR_USAGE', `${what} is not available yet`);
  if (options.nnodes > 1)
    throw notYet(`Expected --nnodes 1 but received ${options.nnodes} (from ${options.source}): a job of several nodes`);
  if (options.maxRestarts > 0) throw notYet(`Expected --max-restarts 0 but received ${options.maxRestarts}: restarting the gang`);
  if (hasRendezvousTimeout) throw notYet('Expected no --rdzv-timeout on one node, where nothing meets: a job of several nodes');
}
