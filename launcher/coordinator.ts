/**
 * Decides for a job of any number of nodes: when its epochs start, which failure counts, what is stopped or restarted,
 * and how it ends. It knows the nodes by their agents' events and acts by commands; the clock is passed in.
 */
import { NdsError } from '../protocol/errors.ts';
import { describeError, type FailureRecord } from '../protocol/failure.ts';
import type { AgentCommand, AgentEvent, RankExit } from './agent-messages.ts';
import { type Clock, systemClock } from './clock.ts';
import { EpochFacts } from './epoch-facts.ts';
import { buildReport, type ErrorReport, type ReportInput, type Restart } from './error-report.ts';
import type { RankState } from './rank-state.ts';
import { healthyMs, RestartPolicy } from './restart-policy.ts';
import { endText, exitCodeOf, failureRecord, type GangEnd, hasFailed, isEcho, rootCause, type Suspect } from './root-cause.ts';
import type { HangJudge, Verdict } from './watchdog.ts';

/** A job, once its nodes have met. */
export interface Job {
  readonly runId: string;
  readonly command: readonly string[];
  readonly localWorldSize: number;
  /** `[nnodes]` address that each node is reached at. */
  readonly addresses: readonly string[];
  readonly maxRestarts: number;
  readonly restartBackoffMs: number;
  readonly shutdownTimeoutMs: number;
  readonly failureTimeoutMs: number;
  readonly watchdog: Pick<HangJudge, 'reset' | 'take'>;
}

/** Failures within this time of each other are compared to find the first. */
const simultaneousMs = 50;
/** How long a node may take to say what its ranks have recorded. */
const inspectMs = 1000;

type Phase =
  | 'preparing'
  | 'running'
  /** A failure was seen, and the first one is not yet determined. */
  | 'judging'
  /** Ranks are being stopped for a restart. */
  | 'regrouping'
  | 'backing off'
  /** The end is decided, and ranks still run. */
  | 'ending'
  | 'finished';

export class Coordinator {
  readonly #job: Job;
  readonly #send: (node: number, command: AgentCommand) => void;
  readonly #clock: Clock;
  readonly #policy: RestartPolicy;
  readonly #lostNodes = new Set<number>();
  readonly #hosts = new Map<number, string>();
  /** Nodes whose launcher got a stop signal. */
  readonly #signalled = new Set<number>();
  readonly #restarts: Restart[] = [];
  #facts: EpochFacts;
  #phase: Phase = 'preparing';
  #end: GangEnd = { kind: 'finished' };
  /** Whether rank 0 of the epoch before goes on in this one. */
  #keepsRankZero = false;
  #delayMs = 0;
  /** Ends in the epoch before, until its restart has started. */
  #unrecovered: readonly RankExit[] = [];
  /** Why a failure was the last, where restarts were asked for. */
  #notRestarted: string | null = null;
  /** Nodes whose answer to `inspect` is awaited, and what follows. */
  #inspection: { readonly nodes: Set<number>; readonly onDone: () => void; readonly cancel: () => void } | null = null;
  #cancelTimer: () => void = () => {};
  #cancelForgiving: () => void = () => {};

  constructor(job: Job, send: (node: number, command: AgentCommand) => void, clock = systemClock) {
    this.#job = job;
    this.#send = send;
    this.#clock = clock;
    this.#policy = new RestartPolicy(job);
    this.#facts = new EpochFacts(0, job.localWorldSize, []);
  }

  /** Starts the first epoch. */
  start(): void {
    this.#begin(0);
  }

  /** Handles what a node's agent says; what belongs to an older epoch is dropped. */
  handle(node: number, event: AgentEvent): void {
    if (this.#phase === 'finished' || this.#lostNodes.has(node)) return;
    if (event.type === 'signalled') return this.#onSignal(node, event.signal);
    if (event.type === 'failed') return this.#onNodeFailed(node, event);
    if (event.epoch !== this.#facts.epoch) return;
    const rank = rankOf(event);
    if (rank !== null && this.#facts.nodeOf(rank) !== node) {
      throw new NdsError('ERR_PROTOCOL', `Expected '${event.type}' of a rank of node ${node} but received rank ${rank}`);
    }
    switch (event.type) {
      case 'prepared':
        return this.#onPrepared(node, event);
      case 'exit':
        return this.#onExit(event);
      case 'closed':
        this.#facts.closed(event);
        return this.#settle();
      case 'inspected':
        this.#facts.inspected(node, event, this.#clock.now());
        return this.#answered(node);
      case 'publish':
        return this.#broadcast({ ...event, type: 'published' });
      case 'ready':
        return this.#onReady(event.rank);
      case 'states':
        return this.#onStates(event.states);
    }
  }

  /** Ends the job, since a node's launcher cannot be heard. */
  nodeLost(node: number, why: string): void {
    if (this.#phase === 'finished' || this.#lostNodes.has(node)) return;
    this.#lostNodes.add(node);
    const address = this.#job.addresses[node] as string;
    const message = `Expected node ${node} at ${address} to stay but ${why}`;
    this.#endByNode({ kind: 'node-lost', node, address, why }, [], { code: 'ERR_PEER_LOST', message });
    this.#answered(node);
    this.#settle();
  }

  #onNodeFailed(node: number, { code, message, running }: Extract<AgentEvent, { type: 'failed' }>): void {
    const address = this.#job.addresses[node] as string;
    this.#endByNode({ kind: 'node-failed', node, address, code, message }, running, { code, message });
    this.#settle();
  }

  /** Ends the job for what happened to a node, whose ranks in `running` still run. */
  #endByNode(end: Extract<GangEnd, { node: number }>, running: readonly number[], error: Pick<FailureRecord, 'code' | 'message'>): void {
    this.#facts.keepOnly(end.node, running);
    if (!this.#isCausedByNode()) return;
    this.#end = end;
    this.#stopAll({ rank: end.node * this.#job.localWorldSize, exitCode: null, signal: null, ...error });
  }

  /** Whether what happened to a node is the cause of the job's end: nothing else is, but what other ranks notice of it. */
  #isCausedByNode(): boolean {
    if (this.#phase === 'ending') return this.#end.kind === 'failed' && isEcho(this.#end.root);
    return this.#phase !== 'judging' || this.#facts.suspects().every(isEcho);
  }

  #begin(epoch: number): void {
    this.#unrecovered = this.#facts.exits;
    this.#facts = new EpochFacts(epoch, this.#job.localWorldSize, this.#keepsRankZero ? [0] : []);
    this.#phase = 'preparing';
    this.#broadcast({ type: 'prepare', epoch });
  }

  #onPrepared(node: number, { host, publicKeys }: Extract<AgentEvent, { type: 'prepared' }>): void {
    this.#hosts.set(node, host);
    this.#facts.prepared.set(node, publicKeys);
    const { addresses, runId, localWorldSize } = this.#job;
    if (this.#facts.prepared.size < addresses.length || this.#phase !== 'preparing') return;
    this.#phase = 'running';
    this.#unrecovered = [];
    this.#facts.started(addresses.length * localWorldSize);
    this.#policy.started();
    this.#job.watchdog.reset();
    this.#watchHealth();
    const keys = addresses.flatMap((_, index) => this.#facts.prepared.get(index) ?? []);
    const nodes = addresses.length > 1 ? { addresses, publicKeys: keys } : null;
    this.#broadcast({ type: 'start', epoch: this.#facts.epoch, runId, keepsRankZero: this.#keepsRankZero, nodes });
  }

  #onReady(rank: number): void {
    if (rank !== 0) return;
    this.#policy.ready();
    this.#watchHealth();
  }

  #watchHealth(): void {
    this.#cancelForgiving();
    this.#cancelForgiving = this.#clock.after(healthyMs, () => this.#policy.forgive());
  }

  #onExit({ exit, error }: Extract<AgentEvent, { type: 'exit' }>): void {
    this.#facts.exited(exit, error, this.#clock.now());
    this.#broadcast({ type: 'ended', epoch: this.#facts.epoch, rank: exit.rank });
    if (this.#phase === 'running') {
      if (hasFailed(exit)) this.#judgeSoon();
      // Followers end with rank 0; a follower that ends early and well does not stop the others.
      else if (exit.rank === 0) this.#arm(this.#job.shutdownTimeoutMs, () => this.#stopStragglers());
    } else if (exit.rank === 0 && this.#keepsRankZero && this.#isRestarting) this.#onRankZeroExit(exit);
    this.#settle();
  }

  /** Whether a restart is due whose ranks are not yet started. */
  get #isRestarting(): boolean {
    return this.#phase === 'regrouping' || this.#phase === 'backing off' || this.#phase === 'preparing';
  }

  /** Rank 0 has ended while the others are away: well, then the job is done; else the whole gang starts anew. */
  #onRankZeroExit(exit: RankExit): void {
    this.#keepsRankZero = false;
    const suspect = this.#facts.suspect(0);
    if (!hasFailed(exit)) return this.#close();
    if (!isEcho(suspect)) return this.#fail({ kind: 'failed', root: suspect });
    this.#notice('rank 0 has ended because of it, so that the whole gang starts its script again');
    if (this.#phase === 'preparing') this.#phase = 'regrouping';
  }

  #judgeSoon(): void {
    this.#phase = 'judging';
    this.#arm(simultaneousMs, () => this.#inspect(() => this.#judge()));
  }

  #judge(): void {
    this.#fail({ kind: 'failed', root: rootCause(this.#facts.suspects()) });
  }

  #onStates(states: readonly RankState[]): void {
    // From a rank's end on, that decides.
    const verdict = this.#phase === 'running' && this.#facts.exits.length === 0 ? this.#job.watchdog.take(states) : null;
    if (verdict === null) return;
    if (verdict.kind === 'stalled') return this.#notice(...verdict.lines);
    this.#phase = 'judging';
    // One that has failed meanwhile is the cause.
    this.#inspect(() => (this.#facts.suspects().length > 0 ? this.#judge() : this.#hung(verdict)));
  }

  #hung(hang: Verdict): void {
    const { rank, message } = hang;
    const root = { rank, exit: null, error: describeError(rank, new NdsError('ERR_STEP_TIMEOUT', message)) };
    this.#fail({ kind: 'hung', root, hang });
  }

  /** Asks every node what its ranks have recorded. */
  #inspect(onDone: () => void): void {
    this.#inspection?.cancel();
    const cancel = this.#clock.after(inspectMs, () => this.#inspected());
    this.#inspection = { nodes: new Set(this.#nodes()), onDone, cancel };
    this.#broadcast({ type: 'inspect', epoch: this.#facts.epoch });
  }

  #answered(node: number): void {
    this.#inspection?.nodes.delete(node);
    if (this.#inspection?.nodes.size === 0) this.#inspected();
  }

  #inspected(): void {
    const inspection = this.#inspection;
    this.#inspection = null;
    inspection?.cancel();
    inspection?.onDone();
    this.#settle();
  }

  #fail(end: Extract<GangEnd, { root: Suspect }>): void {
    const { root } = end;
    const failure = failureRecord(root);
    const zero = this.#facts.exitOf(0);
    const isOver = this.#signalled.size > 0 || (zero !== null && !hasFailed(zero));
    const decision = isOver ? null : this.#policy.decide(root);
    if (decision === null || !decision.isDue) {
      this.#end = end;
      this.#notRestarted = decision?.reason || null;
      return this.#stopAll(failure);
    }
    const { number, delayMs } = decision;
    this.#keepsRankZero = root.rank !== 0 && zero === null;
    this.#delayMs = delayMs;
    const cause = end.kind === 'hung' ? end.hang.message : endText(root);
    this.#restarts.push({ rank: root.rank, cause, time: new Date(this.#clock.now()).toISOString() });
    const what = this.#keepsRankZero ? 'rank 0 goes on and the others start anew' : 'the whole gang starts its script again';
    this.#notice(`rank ${root.rank} was lost (${cause}): restart ${number} of ${this.#job.maxRestarts} in ${delayMs / 1000} s, ${what}`);
    this.#phase = 'regrouping';
    this.#cancelAll();
    this.#broadcast({ type: 'stop', epoch: this.#facts.epoch, failure, keepsRankZero: this.#keepsRankZero });
  }

  #stopStragglers(): void {
    this.#end = { kind: 'stuck', ranks: [...this.#facts.live] };
    this.#stopAll(null);
  }

  #stopAll(failure: FailureRecord | null): void {
    this.#close();
    this.#broadcast({ type: 'stop', epoch: this.#facts.epoch, failure, keepsRankZero: false });
  }

  /** The end is decided: waits for the ranks that run. */
  #close(): void {
    this.#phase = 'ending';
    this.#cancelAll();
  }

  /**
   * The job's first signal is passed on and leaves ranks time to end; a node's second kills. SIGPIPE, the reader of the
   * output has left, stops the ranks as a failure does: nobody wants what is in flight.
   */
  #onSignal(node: number, signal: NodeJS.Signals): void {
    if (signal === 'SIGUSR2') return this.#broadcast({ type: 'signal', signal });
    const isFirst = this.#signalled.size === 0;
    const isSecond = this.#signalled.has(node);
    this.#signalled.add(node);
    if (isSecond) this.#force();
    if (!isFirst) return this.#settle();
    const what = signal === 'SIGPIPE' ? 'the reader of its standard output has left' : `it received ${signal}`;
    const lines = [`node ${node} (${this.#hosts.get(node) ?? ''}) ends the job: ${what}`];
    for (const other of this.#nodes()) if (other !== node) this.#send(other, { type: 'notice', lines });
    if (this.#phase === 'running' || this.#isRestarting) {
      this.#end = { kind: 'signalled', signal, wasForced: false };
      this.#close();
      const { shutdownTimeoutMs, failureTimeoutMs } = this.#job;
      this.#arm(signal === 'SIGPIPE' ? failureTimeoutMs : shutdownTimeoutMs, () => this.#force());
    }
    this.#broadcast({ type: 'signal', signal: signal === 'SIGPIPE' ? 'SIGTERM' : signal });
    this.#settle();
  }

  #force(): void {
    if (this.#end.kind === 'signalled') this.#end = { ...this.#end, wasForced: true };
    this.#broadcast({ type: 'signal', signal: 'SIGKILL' });
  }

  /** Goes on once the ranks that were waited for have ended. */
  #settle(): void {
    const { live } = this.#facts;
    if (this.#phase === 'regrouping') {
      if (live.size > (this.#keepsRankZero ? 1 : 0)) return;
      this.#phase = 'backing off';
      this.#arm(this.#delayMs, () => this.#begin(this.#facts.epoch + 1));
    } else if (live.size === 0 && this.#phase === 'judging') {
      if (this.#inspection !== null) return;
      this.#cancelTimer();
      this.#inspect(() => this.#judge());
    } else if (live.size === 0 && (this.#phase === 'running' || this.#phase === 'ending')) {
      if (this.#facts.isClosed(this.#lostNodes)) this.#finish();
    }
  }

  #finish(): void {
    this.#phase = 'finished';
    this.#cancelAll();
    const end = this.#end;
    const exitCode = exitCodeOf(end, [...this.#unrecovered, ...this.#facts.exits]);
    const report = end.kind === 'finished' || end.kind === 'signalled' ? null : JSON.stringify(this.#report(end, exitCode));
    this.#broadcast({ type: 'finish', exitCode, report });
  }

  #report(end: ReportInput['end'], exitCode: number): ErrorReport {
    const { runId, command } = this.#job;
    const facts = this.#facts;
    const root = end.kind === 'failed' || end.kind === 'hung' ? end.root.rank : 0;
    return buildReport({
      end,
      exits: facts.exits,
      exitCode,
      runId,
      command,
      placeOf: (rank) => ({ node: facts.nodeOf(rank), host: this.#hosts.get(facts.nodeOf(rank)) ?? '' }),
      errorOf: (rank) => facts.errorOf(rank),
      stateOf: (rank) => facts.stateOf(rank),
      stderrTail: (rank) => facts.outputOf(rank).stderrTail,
      hasOutOfMemoryKill: facts.outputOf(root).hasOutOfMemoryKill,
      restarts: this.#restarts,
      notRestarted: this.#notRestarted,
    });
  }

  #notice(...lines: string[]): void {
    this.#broadcast({ type: 'notice', lines });
  }

  #broadcast(command: AgentCommand): void {
    for (const node of this.#nodes()) this.#send(node, command);
  }

  /** Nodes that can be heard. */
  #nodes(): number[] {
    return [...this.#job.addresses.keys()].filter((node) => !this.#lostNodes.has(node));
  }

  #arm(delayMs: number, action: () => void): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(delayMs, action);
  }

  #cancelAll(): void {
    this.#cancelTimer();
    this.#cancelForgiving();
    this.#inspection?.cancel();
    this.#inspection = null;
  }
}

function rankOf(event: AgentEvent): number | null {
  if (event.type === 'exit') return event.exit.rank;
  return event.type === 'closed' || event.type === 'ready' ? event.rank : null;
}
