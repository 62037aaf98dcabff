/** This node's part of a job, from the meeting of the nodes to the report: its agent, and the coordinator on node 0. */
import { writeFileSync } from 'node:fs';
import { exitCodes } from '../protocol/errors.ts';
import { joinTrace } from '../protocol/trace-file.ts';
import { Agent, type AgentContext } from './agent.ts';
import { readAgentCommand, readAgentEvent } from './agent-messages.ts';
import { Coordinator, type Job } from './coordinator.ts';
import { type ErrorReport, writeReport } from './error-report.ts';
import type { NodeLink, Welcome } from './link/index.ts';
import { NodeKeys } from './node-keys.ts';
import type { PlacedOptions } from './options.ts';
import type { Output } from './output.ts';
import { formatReport } from './report-text.ts';
import type { Resources } from './resources.ts';
import type { SignalRouter } from './signals.ts';
import type { StateMemory } from './state-memory.ts';
import { HangJudge } from './watchdog.ts';

export interface NodeJob {
  readonly options: PlacedOptions;
  readonly plan: AgentContext['plan'];
  readonly localWorldSize: number;
  /** Receives the agent, whose ranks end with this launcher. */
  readonly agents: Agent[];
  readonly resources: Resources;
  readonly output: Output;
  readonly signals: SignalRouter;
  /** Gives back at once what this launcher holds: ranks, run folders, sockets. */
  readonly release: () => void;
  readonly states: StateMemory;
  /** To the launchers of the other nodes; null on one node. */
  readonly link: NodeLink | null;
}

/** @returns the exit code of the whole job. */
export async function runJob(job: NodeJob): Promise<number> {
  const { options, resources, output, signals, link, localWorldSize } = job;
  // Rank 0 appends to it, so it starts empty.
  if (options.record !== null && options.nodeRank === 0) writeFileSync(options.record, '');
  const { exitCode, report } = await (link === null || options.nodeRank === 0 ? coordinate(job, link) : obey(job, link));
  if (report !== null) show(JSON.parse(report) as ErrorReport, job);
  await link?.close();
  // From here on a signal ends the launcher at once, so that an unread console cannot keep it alive.
  signals.endWith(job.release);
  await output.close();
  if (options.trace !== null) joinTrace(resources.runDirs, localWorldSize * options.nnodes, options.trace);
  return exitCode === 0 ? output.exitCode : exitCode;
}

interface End {
  readonly exitCode: number;
  readonly report: string | null;
}

/** Node 0, or the only one. */
function coordinate(job: NodeJob, link: NodeLink | null): Promise<End> {
  const agent: Agent = new Agent(contextOf(job), (event) => coordinator.handle(0, event));
  job.agents.push(agent);
  const coordinator = new Coordinator(jobOf(job), (node, command) => (node === 0 ? agent.handle(command) : link?.send(node, command)));
  link?.on('message', (node, value) => coordinator.handle(node, readAgentEvent(value)));
  link?.on('lost', (node, why) => coordinator.nodeLost(node, why));
  coordinator.start();
  job.signals.connect(agent);
  return agent.finished;
}

/** Every other node: its ranks end with node 0's launcher. */
async function obey(job: NodeJob, link: NodeLink): Promise<End> {
  const agent = new Agent(contextOf(job), (event) => link.send(0, event));
  job.agents.push(agent);
  link.on('message', (_, value) => agent.handle(readAgentCommand(value)));
  const lost = new Promise<string>((resolve) => link.on('lost', (_, why) => resolve(why)));
  job.signals.connect(agent);
  const end = await Promise.race([agent.finished, lost]);
  if (typeof end !== 'string') return end;
  const message = `node 0 at ${link.welcome.nodes[0]?.address} was lost: ${end}`;
  job.output.notice(`${message}; this node's ranks end with it`);
  await agent.abandon(message);
  return { exitCode: exitCodes.ERR_PEER_LOST, report: null };
}

function contextOf({ options, plan, localWorldSize, resources, output, states, link }: NodeJob): AgentContext {
  const { failureTimeoutMs, stepTimeoutMs, nodeRank } = options;
  const keys = link && new NodeKeys(link.welcome.secret, localWorldSize, addressesOf(link.welcome)[nodeRank] as string);
  return { resources, output, failureTimeoutMs, stepTimeoutMs, plan, keys, states };
}

function jobOf({ options, localWorldSize, resources, link }: NodeJob): Job {
  return {
    ...options,
    runId: link?.welcome.runId ?? resources.runId,
    command: [options.script, ...options.scriptArgs],
    localWorldSize,
    addresses: link === null ? ['127.0.0.1'] : addressesOf(link.welcome),
    watchdog: new HangJudge(localWorldSize * options.nnodes, options.stepTimeoutMs),
  };
}

function addressesOf({ nodes }: Welcome): string[] {
  return nodes.map(({ address }) => address);
}

function show(report: ErrorReport, { options, output, localWorldSize }: NodeJob): void {
  const numRanks = localWorldSize * options.nnodes;
  const isStderrShown = report.firstFailure !== null && output.shows(report.firstFailure.rank, 'stderr');
  const place = { file: options.report, numNodes: options.nnodes, numRanks, isStderrShown };
  for (const line of formatReport(report, place)) output.notice(line);
  if (options.report !== null) writeReport(report, options.report);
}
