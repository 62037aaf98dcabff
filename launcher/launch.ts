/** Launches this node's part of a job: check, open, meet the other nodes, run, release. */
import { hostname } from 'node:os';
import { NdsError } from '../protocol/errors.ts';
import { numUsableCores, readProcessors } from '../protocol/processors.ts';
import type { Agent, RoutedPlan } from './agent.ts';
import { runJob } from './job.ts';
import type { LinkCall, NodeIdentity, NodeLink } from './link/index.ts';
import { visibleGpus } from './machine.ts';
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
import { exitCodeOf } from './root-cause.ts';
import { checkFiles, checkScript } from './script.ts';
import { SignalRouter } from './signals.ts';
import { StateMemory } from './state-memory.ts';
import { type OutputStyle, routesOf, terminalEnv, terminals } from './terminal.ts';

/** Inputs of a launch beside its options. */
export interface LaunchContext {
  readonly runtime: RankRuntime;
  readonly output?: OutputStyle;
  /** Finds the devices that ranks compute on; called only where there is a GPU. */
  readonly findDevices: () => UsableDevices;
  /** What other nodes compare with theirs; called on several nodes only. */
  readonly identity: () => NodeIdentity;
  /** A command's own options that all nodes must have the same value of, by name. */
  readonly agreed?: Readonly<Record<string, string>>;
}

function inspectMachine(context: LaunchContext): Machine {
  const gpus = visibleGpus(process.env);
  const usable = gpus.length === 0 ? { devices: [], reason: null } : context.findDevices();
  return { cores: numUsableCores(readProcessors()), gpus, usable };
}

/**
 * Runs the ranks of this node, with those of the others, to the end of the job.
 *
 * @returns the exit code of the whole job.
 * @throws NdsError before anything was started: `ERR_NOT_FOUND`, `ERR_USAGE`, `ERR_SYSTEM`.
 */
export async function launch(options: LaunchOptions, context: LaunchContext): Promise<number> {
  checkScript(options);
  checkFiles(options);
  const machine = inspectMachine(context);
  const signals = new SignalRouter();
  const numRanks = localWorldSize(options, machine);
  const states = StateMemory.open(numRanks);
  const resources = await Resources.open(options, numRanks);
  const agents: Agent[] = [];
  const abandon = (): void => {
    for (const agent of agents) agent.dispose();
    resources.dispose();
    states.close();
  };
  // Kills the ranks if the launcher ends early, e.g. on an exception.
  process.once('exit', abandon);
  try {
    const plan = (gang: GangResources, nodeRank: number, isa: string | null) =>
      planOutput(planRanks({ ...options, nodeRank, isa }, machine, context.runtime, gang, process.env), options, context);
    // What the machine cannot do is refused before other nodes wait for it.
    plan(resources.gang(0), options.nodeRank ?? 0, null);
    const output = new Output(options, resources.runId, () => signals.deliver('SIGPIPE'));
    announce(options, machine, output);
    const notice = (line: string) => output.notice(line);
    const { identity, agreed } = context;
    const call = () => ({ options, localWorldSize: numRanks, identity: identity(), agreed, notice });
    const link = options.nnodes === 1 ? null : await meet(call(), signals);
    if (typeof link === 'string') return exitCodeOf({ kind: 'signalled', signal: link, wasForced: false }, []);
    const { nodeRank, isa } = link?.welcome ?? { nodeRank: 0, isa: null };
    const held = { agents, resources, states, release: abandon };
    const ofNode = { ...held, output, signals, link, localWorldSize: numRanks };
    return await runJob({ ...ofNode, options: { ...options, nodeRank, isa }, plan: (gang) => plan(gang, nodeRank, isa) });
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

/** Waits for the other nodes; a stop signal ends the wait, and is then returned. */
async function meet(call: Omit<LinkCall, 'signal'>, signals: SignalRouter): Promise<NodeLink | NodeJS.Signals> {
  const abort = new AbortController();
  let received: NodeJS.Signals | null = null;
  const stop = (signal: NodeJS.Signals): void => {
    received ??= signal;
    abort.abort();
  };
  signals.connect({ stop, signal: () => {} });
  try {
    // A job of one node does not wait for TLS to be loaded.
    const { openLink } = await import('./link/index.ts');
    return await openLink({ ...call, signal: abort.signal });
  } catch (error) {
    if (received !== null) return received;
    throw error;
  }
}

function announce(options: LaunchOptions, machine: Machine, output: Output): void {
  for (const line of describeGpus(options, machine)) output.notice(line);
  for (const warning of options.warnings) output.notice(`warning: ${warning}`);
  const layout = describeLayout(options);
  if (layout !== null) output.notice(layout);
}
