/**
 * One node's ranks at the coordinator's command: starts, signals and ends them, keeps their records in the run folder,
 * and reports what they do.
 */
import { hostname } from 'node:os';
import type { GangInfo, NodesInfo, ToLauncher } from '../protocol/control.ts';
import { deferred } from '../protocol/deferred.ts';
import { type NdsError, toNdsError } from '../protocol/errors.ts';
import { readRankError, writeFailure, writeRankEnd } from '../protocol/failure.ts';
import { areInterruptsClaimed } from '../protocol/interrupts.ts';
import type { AgentCommand, AgentEvent, NodesSetup, RankExit } from './agent-messages.ts';
import { type KernelCount, outOfMemoryKills } from './machine.ts';
import type { NodeKeys } from './node-keys.ts';
import type { Output } from './output.ts';
import type { GangResources, RankPlan } from './plan.ts';
import { RankProcess } from './rank-process.ts';
import { newestStep, type RankState, stateText } from './rank-state.ts';
import type { EpochResources, Resources } from './resources.ts';
import type { SignalTarget } from './signals.ts';
import type { StateMemory } from './state-memory.ts';
import { StateSampler } from './state-sampler.ts';
import type { Routes } from './terminal.ts';

/** A rank, and where its output goes. */
export interface RoutedPlan {
  readonly plan: RankPlan;
  readonly routes: Routes;
}

export interface AgentContext {
  readonly resources: Resources;
  readonly output: Output;
  readonly failureTimeoutMs: number;
  readonly stepTimeoutMs: number;
  /** The ranks of this node in one epoch. */
  readonly plan: (gang: GangResources) => readonly RoutedPlan[];
  /** Secrets of the ranks in a job of several nodes; null on one. */
  readonly keys: NodeKeys | null;
  /** In which the ranks of this node tell what they do. */
  readonly states: StateMemory;
}

type Finish = Extract<AgentCommand, { type: 'finish' }>;

/** A started rank, with the run folder that it was started in. */
interface LocalRank {
  readonly process: RankProcess;
  readonly runDir: string;
  /** Resolves when all of its output is read. */
  readonly output: Promise<void>;
  isStopped: boolean;
  /** Whether this launcher has sent it SIGKILL. */
  isKilled: boolean;
}

export class Agent implements SignalTarget {
  readonly #context: AgentContext;
  readonly #emit: (event: AgentEvent) => void;
  /** By rank, those that run and those that have ended in the newest epoch. */
  readonly #ranks = new Map<number, LocalRank>();
  readonly #end = deferred<Finish>();
  #epoch: EpochResources | null = null;
  /** The one that was last asked for, whether or not it could be opened. */
  #newestEpoch = 0;
  #sampler: StateSampler | null = null;
  #killsBefore: KernelCount | null = null;
  #numSignals = 0;

  constructor(context: AgentContext, emit: (event: AgentEvent) => void) {
    this.#context = context;
    this.#emit = emit;
  }

  /** Settles with the end of the job. @throws NdsError where nothing was started, and no other node must be told. */
  get finished(): Promise<Finish> {
    return this.#end.promise;
  }

  /** Does what the coordinator says; it is told where that cannot be done. */
  handle(command: AgentCommand): void {
    try {
      this.#obey(command);
    } catch (error) {
      this.#fail(toNdsError(error, 'ERR_SYSTEM'));
    }
  }

  #fail(error: NdsError): void {
    if (this.#context.keys === null && this.#ranks.size === 0) return this.#end.reject(error);
    const { code, message } = error;
    // After what the coordinator is just doing: on node 0 it called us.
    queueMicrotask(() => {
      const running = this.#running().map(({ process }) => process.plan.rank);
      this.#emit({ type: 'failed', code, message, running });
    });
  }

  #obey(command: AgentCommand): void {
    switch (command.type) {
      case 'prepare':
        return this.#prepare(command.epoch);
      case 'start':
        return this.#start(command);
      case 'stop':
        return this.#stop(command);
      case 'ended':
        return writeRankEnd(this.#opened.runDir, command.rank);
      case 'published':
        for (const { process } of this.#running()) process.send(command);
        return;
      case 'inspect':
        return this.#inspect(command.epoch);
      case 'signal':
        if (command.signal === 'SIGUSR2') this.#showStates();
        return this.#kill(command.signal);
      case 'notice':
        for (const line of command.lines) this.#context.output.notice(line);
        return;
      case 'finish':
        this.#sampler?.stop();
        return this.#end.resolve(command);
    }
  }

  /** A stop signal to this launcher. SIGINT does not stop the job where rank 0 is here and answers it. */
  stop(signal: NodeJS.Signals): void {
    const zero = this.#ranks.get(0);
    if (signal === 'SIGINT' && this.#numSignals === 0 && zero !== undefined && areInterruptsClaimed(zero.runDir)) {
      return zero.process.kill(signal);
    }
    this.#numSignals++;
    this.#emit({ type: 'signalled', signal });
    // The second kills, also where the coordinator does not answer.
    if (this.#numSignals > 1) this.#kill('SIGKILL');
  }

  /** A signal that stops nothing: all ranks of the job print their state, or those of this terminal learn its size. */
  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGUSR2') this.#emit({ type: 'signalled', signal });
    else this.#kill(signal);
  }

  /** Ends this node's ranks without the coordinator: it is gone. Resolves when they have ended. */
  async abandon(message: string): Promise<void> {
    const failure = { rank: 0, exitCode: null, signal: null, code: 'ERR_PEER_LOST', message };
    this.handle({ type: 'stop', epoch: this.#newestEpoch, failure, keepsRankZero: false });
    await Promise.all(this.#running().map(({ process }) => new Promise((resolve) => process.once('exit', resolve))));
  }

  /** Kills every rank now. */
  dispose(): void {
    this.#sampler?.stop();
    this.#kill('SIGKILL');
  }

  get #opened(): EpochResources {
    if (this.#epoch === null) throw new TypeError('Expected an epoch to be prepared first');
    return this.#epoch;
  }

  #running(): LocalRank[] {
    return [...this.#ranks.values()].filter(({ process }) => process.exit === null);
  }

  #prepare(epoch: number): void {
    const { resources, keys, output } = this.#context;
    this.#newestEpoch = epoch;
    // A rank that is older than the epoch opens its memory by name.
    const isNamed = this.#running().length > 0;
    this.#epoch = resources.openEpoch(epoch, isNamed);
    if (this.#epoch.notice !== null) output.notice(this.#epoch.notice);
    this.#emit({ type: 'prepared', epoch, host: hostname(), publicKeys: keys?.renew(epoch) ?? [] });
  }

  #start({ epoch, runId, keepsRankZero, nodes }: Extract<AgentCommand, { type: 'start' }>): void {
    const { resources, plan, states, stepTimeoutMs } = this.#context;
    const { runDir, shmFd, shmPath } = this.#opened;
    this.#killsBefore = outOfMemoryKills();
    const gangOf = (index: number, path: string | null): GangInfo => ({
      epoch,
      runDir,
      shmPath: path,
      nodes: nodes && this.#nodesInfo(index, nodes),
    });
    const zero = this.#ranks.get(0);
    for (const [index, { plan: own, routes }] of plan({ ...resources.gang(epoch), runId, runDir }).entries()) {
      if (keepsRankZero && own.rank === 0 && zero !== undefined) {
        zero.process.send({ type: 'gang', gang: gangOf(index, shmPath) });
        continue;
      }
      states.reset(own.localRank);
      const process = new RankProcess(own, shmFd, states.fd, routes);
      process.send({ type: 'gang', gang: gangOf(index, null) });
      const rank: LocalRank = { process, runDir, output: this.#attach(process, routes, epoch), isStopped: false, isKilled: false };
      this.#ranks.set(own.rank, rank);
      process.on('message', (message) => this.#onMessage(own.rank, message));
      process.once('exit', (exit) => this.#onExit(exit, rank));
    }
    if (!keepsRankZero) this.#opened.unlink();
    this.#sampler?.stop();
    const read = () => this.#readStates();
    this.#sampler = new StateSampler(stepTimeoutMs, read, (found) => this.#emit({ type: 'states', epoch, states: found }));
  }

  /** Reads a rank's output; one whose log cannot be opened does not run. */
  #attach(process: RankProcess, routes: Routes, epoch: number): Promise<void> {
    try {
      return this.#context.output.attach(process.plan, routes, process.streams, epoch);
    } catch (error) {
      process.kill('SIGKILL');
      throw error;
    }
  }

  #nodesInfo(index: number, { addresses, publicKeys }: NodesSetup): NodesInfo | null {
    const { keys } = this.#context;
    return keys && { addresses, ...keys.of(index, publicKeys) };
  }

  #onMessage(rank: number, message: ToLauncher): void {
    if (message.type === 'publish') return this.#emit(message);
    if (rank === 0 && message.epoch === this.#epoch?.epoch) this.#epoch.unlink();
    this.#emit({ ...message, rank });
  }

  #onExit(exit: RankExit, rank: LocalRank): void {
    const epoch = this.#newestEpoch;
    this.#emit({ type: 'exit', epoch, exit, error: readRankError(rank.runDir, exit.rank) });
    rank.output.then(() => {
      const stderrTail = this.#context.output.tail(exit.rank);
      const kills = describeKills(this.#killsBefore, outOfMemoryKills());
      this.#emit({ type: 'closed', epoch, rank: exit.rank, stderrTail, outOfMemoryKills: kills, wasKilledByLauncher: rank.isKilled });
    });
  }

  #stop({ epoch, failure, keepsRankZero }: Extract<AgentCommand, { type: 'stop' }>): void {
    const ranks = this.#running().filter(({ process, isStopped }) => !isStopped && !(keepsRankZero && process.plan.rank === 0));
    try {
      // A rank reads it when it is signalled.
      const runDirs = [this.#epoch, ...ranks].flatMap((of) => of?.runDir ?? []);
      if (failure !== null) for (const runDir of new Set(runDirs)) writeFailure(runDir, failure);
    } finally {
      this.#terminate(ranks);
    }
    if (failure !== null && keepsRankZero) this.#ranks.get(0)?.process.send({ type: 'lost', epoch, failure });
  }

  /** SIGTERM, and SIGKILL after the failure timeout. */
  #terminate(ranks: readonly LocalRank[]): void {
    for (const rank of ranks) {
      rank.isStopped = true;
      rank.process.kill('SIGTERM');
    }
    setTimeout(() => {
      for (const rank of ranks) signalRank(rank, 'SIGKILL');
    }, this.#context.failureTimeoutMs).unref();
  }

  #inspect(epoch: number): void {
    const errors = [...this.#ranks].flatMap(([rank, { runDir }]) => readRankError(runDir, rank) ?? []);
    this.#emit({ type: 'inspected', epoch, time: Date.now(), errors, states: this.#readStates() });
  }

  #readStates(): RankState[] {
    const { states } = this.#context;
    return [...this.#ranks.values()].map(({ process: { plan, exit, pid } }) => states.read({ ...plan, pid: exit === null ? pid : null }));
  }

  #showStates(): void {
    const states = this.#readStates();
    for (const state of states) this.#context.output.notice(stateText(state, newestStep(states)));
  }

  #kill(signal: NodeJS.Signals): void {
    for (const rank of this.#running()) signalRank(rank, signal);
  }
}

function signalRank(rank: LocalRank, signal: NodeJS.Signals): void {
  if (signal === 'SIGKILL' && rank.process.exit === null) rank.isKilled = true;
  rank.process.kill(signal);
}

/** Null where the kernel has counted none. */
function describeKills(before: KernelCount | null, after: KernelCount | null): string | null {
  if (after === null || after.count <= (before?.count ?? 0)) return null;
  return `oom_kill in ${after.file} went from ${before?.count ?? 0} to ${after.count}`;
}
