/** Runs one gang on this node: check, open, spawn, supervise, report, release. */
import { writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { NdsError } from '../protocol/errors.ts';
import { joinTrace } from '../protocol/trace-file.ts';
import { buildReport, formatReport, type ReportInput, writeReport } from './error-report.ts';
import { allowedCores, outOfMemoryKills, visibleGpus } from './machine.ts';
import { describeLayout } from './node-layout.ts';
import type { LaunchOptions, PlacedOptions } from './options.ts';
import { Output } from './output.ts';
import { describeGpus, localWorldSize, type Machine, planRanks, type RankPlan, type RankRuntime, type UsableDevices } from './plan.ts';
import { RankProcess } from './rank-process.ts';
import { Resources } from './resources.ts';
import { exitCodeOf } from './root-cause.ts';
import { checkFiles, checkScript } from './script.ts';
import { SignalRouter } from './signals.ts';
import { Supervisor } from './supervisor.ts';
import { type OutputStyle, type Routes, routesOf, terminalEnv, terminals } from './terminal.ts';

/** Inputs of a launch beside its options. */
export interface LaunchContext {
  readonly runtime: RankRuntime;
  readonly output?: OutputStyle;
  /** Finds the devices that ranks compute on; called only where there is a GPU. */
  readonly findDevices: () => UsableDevices;
}

function inspectMachine(context: LaunchContext): Machine {
  const gpus = visibleGpus(process.env);
  const usable = gpus.length === 0 ? { devices: [], reason: null } : context.findDevices();
  return { cores: allowedCores(), gpus, usable };
}

/**
 * Runs the ranks to their end.
 *
 * @returns the exit code of the whole job.
 * @throws NdsError before anything was started: `ERR_NOT_FOUND`, `ERR_USAGE`, `ERR_SYSTEM`.
 */
export async function launch(options: LaunchOptions, context: LaunchContext): Promise<number> {
  if (options.nnodes > 1) throw new NdsError('ERR_USAGE', 'a job of several nodes is not available yet');
  checkScript(options);
  checkFiles(options);
  const machine = inspectMachine(context);
  const signals = new SignalRouter();
  const resources = await Resources.open(options, localWorldSize(options, machine));
  const ranks: RankProcess[] = [];
  const abandon = (): void => {
    for (const rank of ranks) rank.kill('SIGKILL');
    resources.dispose();
  };
  // Kills the ranks if the launcher ends early, e.g. on an exception.
  process.once('exit', abandon);
  try {
    const plans = planOutput(planRanks(placed(options), machine, context.runtime, resources, process.env), options, context);
    const output = new Output(options, resources.runId, () => signals.deliver('SIGPIPE'));
    announce(options, machine, output);
    if (resources.memoryNotice !== null) output.notice(resources.memoryNotice);
    return await runGang({ options, plans, ranks, resources, output, signals });
  } finally {
    process.off('exit', abandon);
    signals.dispose();
    abandon();
  }
}

/** The plan of a launch, as `--dry-run` prints it. */
export async function describeLaunch(options: LaunchOptions, context: LaunchContext): Promise<object> {
  checkScript(options);
  checkFiles(options);
  const machine = inspectMachine(context);
  const ranks = planRanks(placed(options), machine, context.runtime, await Resources.preview(options), process.env);
  const plans = planOutput(ranks, options, context).map(({ plan }) => plan);
  const { nnodes, nodeRank, masterAddr, masterPort, source, rankSource } = options;
  const layout = { nnodes, nodeRank, masterAddr, masterPort, source, rankSource };
  return { host: hostname(), ...layout, cwd: process.cwd(), machine, ranks: plans };
}

function placed(options: LaunchOptions): PlacedOptions {
  const { nodeRank } = options;
  if (nodeRank === null) throw new NdsError('ERR_USAGE', 'Expected --node-rank with --dry-run: without one, node 0 gives it out');
  return { ...options, nodeRank };
}

/** A rank, and where its output goes. */
interface RoutedPlan {
  readonly plan: RankPlan;
  readonly routes: Routes;
}

function planOutput(plans: readonly RankPlan[], options: LaunchOptions, { output = 'lines' }: LaunchContext): RoutedPlan[] {
  const to = terminals();
  return plans.map((plan) => {
    const routes = routesOf(plan, options, plans.length, output, to);
    return { plan: { ...plan, env: { ...plan.env, ...terminalEnv(plan, options, routes, to, process.env) } }, routes };
  });
}

/** One running launch. */
interface Gang {
  readonly options: LaunchOptions;
  readonly plans: readonly RoutedPlan[];
  /** The ranks started so far. */
  readonly ranks: RankProcess[];
  readonly resources: Resources;
  readonly output: Output;
  readonly signals: SignalRouter;
}

async function runGang(gang: Gang): Promise<number> {
  const { options, plans, ranks, resources, output, signals } = gang;
  // Ranks append to it, so it starts empty.
  if (options.record !== null) writeFileSync(options.record, '');
  const killsBefore = outOfMemoryKills();
  const streams: Promise<void>[] = [];
  for (const { plan, routes } of plans) {
    const rank = new RankProcess(plan, resources.shmFd, routes);
    rank.send({ type: 'gang', gang: { epoch: 0, runDir: resources.runDir, shmPath: null, nodes: null } });
    ranks.push(rank);
    streams.push(output.attach(plan, routes, rank.streams));
  }
  const supervisor = new Supervisor(ranks, options, resources.runDir);
  signals.connect(supervisor);
  const end = await supervisor.ended();
  await Promise.all(streams);
  const exits = ranks.flatMap(({ exit }) => exit ?? []);
  const exitCode = exitCodeOf(end, exits);
  if (end.kind === 'failed' || end.kind === 'stuck') {
    const hasOutOfMemoryKill = outOfMemoryKills() > killsBefore;
    report(gang, { end, exits, exitCode, hasOutOfMemoryKill });
  }
  // From here on a signal ends the launcher at once, so that an unread console cannot keep it alive.
  signals.dispose();
  await output.close();
  if (options.trace !== null) joinTrace(resources.runDir, plans.length, options.trace);
  return exitCode === 0 ? output.exitCode : exitCode;
}

function announce(options: LaunchOptions, machine: Machine, output: Output): void {
  for (const line of describeGpus(options, machine)) output.notice(line);
  for (const warning of options.warnings) output.notice(`warning: ${warning}`);
  const layout = describeLayout(options);
  if (layout !== null) output.notice(layout);
}

function report(
  { options, plans, resources, output }: Gang,
  outcome: Pick<ReportInput, 'end' | 'exits' | 'exitCode' | 'hasOutOfMemoryKill'>,
): void {
  const report = buildReport({
    ...outcome,
    host: hostname(),
    runId: resources.runId,
    runDir: resources.runDir,
    command: [options.script, ...options.scriptArgs],
    stderrTail: (rank) => output.tail(rank),
  });
  const numRanks = plans.length * options.nnodes;
  const isStderrShown = report.firstFailure !== null && output.shows(report.firstFailure.rank, 'stderr');
  for (const line of formatReport(report, { file: options.report, numRanks, isStderrShown })) output.notice(line);
  if (options.report !== null) writeReport(report, options.report);
}
