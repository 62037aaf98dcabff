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
  /** File of the secret that all nodes share; given on more than one node. */
  readonly tokenFile: string | null;
  readonly maxRestarts: number;
  readonly restartBackoffMs: number;
  readonly logDir: string | null;
  readonly redirects: StreamMap;
  readonly tee: StreamMap;
  /** Local ranks shown on the console; `null` = all. */
  readonly localRanksFilter: readonly number[] | null;
  readonly logLinePrefixTemplate: string;
  readonly startupTimeoutMs: number;
  readonly rdzvTimeoutMs: number;
  /** Silence of a node's launcher that loses the node. */
  readonly nodeTimeoutMs: number;
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

/** Options of a node once all nodes have met. */
export interface PlacedOptions extends LaunchOptions {
  readonly nodeRank: number;
  /** Instruction set of all ranks; null = each processor's best. */
  readonly isa: string | null;
}

export type LaunchValues = OptionValues<typeof launchSpecs>;

const noStreams = { stdout: false, stderr: false };

/**
 * Parses a whole `ndsrun [options] script [args…]` command line.
 *
 * @throws NdsError `ERR_USAGE` for an invalid, unknown or contradictory option, and for one that needs restarts.
 */
export function parseLaunchOptions(args: readonly string[], env: Environment): LaunchOptions {
  const { options, operands } = parseCommandLine(launchShape, args);
  const [script, ...scriptArgs] = operands;
  if (script === undefined) throw new NdsError('ERR_USAGE', 'Expected a script to run but received none (see ndsrun --help)');
  return resolveLaunchOptions(options, env, script, scriptArgs);
}

/** Merges the command line with `NDS_*`, `PET_*`, `NNODES` etc. and the cluster's variables, in decreasing precedence. */
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
    tokenFile: pick('token-file') ?? null,
    maxRestarts: pick('max-restarts') ?? 0,
    restartBackoffMs: pick('restart-backoff') ?? 1000,
    logDir: pick('log-dir') ?? null,
    redirects: pick('redirects') ?? noStreams,
    tee: pick('tee') ?? noStreams,
    localRanksFilter: pick('local-ranks-filter') ?? null,
    logLinePrefixTemplate: pick('log-line-prefix-template') ?? '[rank ${rank}] ',
    startupTimeoutMs: pick('startup-timeout') ?? 600_000,
    rdzvTimeoutMs: pick('rdzv-timeout') ?? 300_000,
    nodeTimeoutMs: pick('node-timeout') ?? 10_000,
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
  checkTogether(options);
  return options;
}

/** Warnings of `RANK` and `WORLD_SIZE`, which are never read: some platforms put the node's index there. */
function incomingRankWarnings(env: Environment): string[] {
  const found = ['RANK', 'WORLD_SIZE'].filter((name) => env[name] !== undefined).map((name) => `${name}=${env[name]}`);
  return found.length === 0 ? [] : [`ignored ${found.join(' and ')} from the environment: ndsrun sets these for its ranks`];
}

function checkTogether(options: LaunchOptions): void {
  if (options.trace !== null && options.trace === options.record) {
    throw new NdsError('ERR_USAGE', `Expected two files for --trace and --record but received ${options.trace} for both`);
  }
  if (options.nnodes > 1 && options.tokenFile === null) {
    throw new NdsError(
      'ERR_USAGE',
      `Expected --token-file or NDS_TOKEN_FILE with ${options.nnodes} nodes (from ${options.source}) but received none: ` +
        '(umask 077; head -c 32 /dev/urandom | base64 > token) makes one, which every node needs a copy of',
    );
  }
}
