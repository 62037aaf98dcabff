/** Runs one gang on this node: check, open, spawn, supervise, report, release. */
import { writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { NdsError } from '../protocol/errors.ts';
import { joinTrace } from '../protocol/trace-file.ts';
import { Agent, type AgentContext, type RoutedPlan } from './agent.ts';
import { Coordinator, type Job } from './coordinator.ts';
import { type ErrorReport, formatReport, writeReport } from './error-report.ts';
import type { NodeIdentity } from './link/index.ts';
import { allowedCores, visibleGpus } from './machine.ts';
import { describeLayout } from './node-layout.ts';
import type { LaunchOptions, PlacedOptions } from './options.ts';
import { Output } from './output.ts';
import {
  describeGpus,
  type GangResources,
  localWorldSize,
  type Machine,
  planRanks,
  type RankPlan,
  type RankRuntime,
  type UsableDevices,
} from './plan.ts';
import { Resources } from './resources.ts';
import { checkFiles, checkScript } from './script.ts';
import { SignalRouter } from './signals.ts';
import { type OutputStyle, routesOf, terminalEnv, terminals } from './terminal.ts';

/** Inputs of a launch beside its options. */
export interface LaunchContext {
  readonly runtime: RankRuntime;
  readonly output?: OutputStyle;
  /** Finds the devices that ranks compute on; called only where there is a GPU. */
  readonly findDevices: () => UsableDevices;
  /** What other nodes compare with theirs; called on several nodes only. */
  readonly identity: () => NodeIdentity;
}

function inspectMachine(context: LaunchContext): Machine {
  const gpus = visibleGpus(process.env);
  const usable = gpus.length === 0 ? { devices: [], reason: null } : context.findDevices();
  return { cores: allowedCores(), gpus, usable };
}

/**
 * Runs the ranks of this node, with those of the others, to the end of the job.
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
  const numRanks = localWorldSize(options, machine);
  const resources = await Resources.open(options, numRanks);
  const agents: Agent[] = [];
  const abandon = (): void => {
    for (const agent of agents) agent.dispose();
    resources.dispose();
  };
  // Kills the ranks if the launcher ends early, e.g. on an exception.
  process.once('exit', abandon);
  try {
    const plan = (gang: GangResources) =>
      planOutput(planRanks(placed(options), machine, context.runtime, gang, process.env), options, context);
    const output = new Output(options, resources.runId, () => signals.deliver('SIGPIPE'));
    announce(options, machine, output);
    return await runJob({ options, plan, localWorldSize: numRanks, agents, resources, output, signals });
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
  return { ...options, nodeRank, isa: null };
}

function planOutput(plans: readonly RankPlan[], options: LaunchOptions, { output = 'lines' }: LaunchContext): RoutedPlan[] {
  const to = terminals();
  return plans.map((plan) => {
    const routes = routesOf(plan, options, plans.length, output, to);
    return { plan: { ...plan, env: { ...plan.env, ...terminalEnv(plan, options, routes, to, process.env) } }, routes };
  });
}

/** This node's part of a job. */
interface NodeJob {
  readonly options: LaunchOptions;
  readonly plan: AgentContext['plan'];
  readonly localWorldSize: number;
  /** Receives the agent, whose ranks end with this launcher. */
  readonly agents: Agent[];
  readonly resources: Resources;
  readonly output: Output;
  readonly signals: SignalRouter;
}

async function runJob(job: NodeJob): Promise<number> {
  const { options, plan, localWorldSize, agents, resources, output, signals } = job;
  // Ranks append to it, so it starts empty.
  if (options.record !== null) writeFileSync(options.record, '');
  const { failureTimeoutMs } = options;
  const context: AgentContext = { resources, output, failureTimeoutMs, plan, keys: null, readStates: () => [] };
  const agent: Agent = new Agent(context, (event) => coordinator.handle(0, event));
  agents.push(agent);
  const coordinator = new Coordinator(jobOf(job), (_, command) => agent.handle(command));
  coordinator.start();
  signals.connect(agent);
  const { exitCode, report } = await agent.finished;
  if (report !== null) show(JSON.parse(report) as ErrorReport, job);
  // From here on a signal ends the launcher at once, so that an unread console cannot keep it alive.
  signals.dispose();
  await output.close();
  if (options.trace !== null) joinTrace(resources.runDirs, localWorldSize, options.trace);
  return exitCode === 0 ? output.exitCode : exitCode;
}

function jobOf({ options, localWorldSize, resources }: NodeJob): Job {
  return {
    ...options,
    runId: resources.runId,
    command: [options.script, ...options.scriptArgs],
    localWorldSize,
    addresses: ['127.0.0.1'],
    watchdog: null,
  };
}

function announce(options: LaunchOptions, machine: Machine, output: Output): void {
  for (const line of describeGpus(options, machine)) output.notice(line);
  for (const warning of options.warnings) output.notice(`warning: ${warning}`);
  const layout = describeLayout(options);
  if (layout !== null) output.notice(layout);
}

function show(report: ErrorReport, { options, output, localWorldSize }: NodeJob): void {
  const numRanks = localWorldSize * options.nnodes;
  const isStderrShown = report.firstFailure !== null && output.shows(report.firstFailure.rank, 'stderr');
  const place = { file: options.report, numNodes: options.nnodes, numRanks, isStderrShown };
  for (const line of formatReport(report, place)) output.notice(line);
  if (options.report !== null) writeReport(report, options.report);
}
