/**
 * Decides for a job of any number of nodes: when its epochs start, which failure counts, what is stopped or restarted,
 * and how it ends. It knows the nodes by their agents' events and acts by commands; the clock is passed in.
 */
import { NdsError } from '../protocol/errors.ts';
import { describeError, type FailureRecord } from '../protocol/failure.ts';
import type { AgentEvent, RankExit } from './agent-messages.ts';
import { type Clock, systemClock } from './clock.ts';
import type { EpochFacts } from './epoch-facts.ts';
import { Epochs, type EpochsOptions } from './epochs.ts';
import { jobReport, type ReportedJob } from './job-report.ts';
import { Nodes, type SendToNode } from './nodes.ts';
import type { RankState } from './rank-state.ts';
import { endText, exitCodeOf, failureRecord, type GangEnd, hasFailed, isEcho, rootCause, type Suspect } from './root-cause.ts';
import type { HangJudge, Verdict } from './watchdog.ts';

/** A job, once its nodes have met. */
export interface Job extends EpochsOptions, ReportedJob {
  readonly shutdownTimeoutMs: number;
  readonly failureTimeoutMs: number;
  readonly watchdog: Pick<HangJudge, 'reset' | 'take'>;
}

/** Failures within this time of each other are compared to find the first. */
const simultaneousMs = 50;

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
  readonly #clock: Clock;
  readonly #nodes: Nodes;
  readonly #epochs: Epochs;
  /** Nodes whose launcher got a stop signal. */
  readonly #signalled = new Set<number>();
  #phase: Phase = 'preparing';
  #end: GangEnd = { kind: 'finished' };
  #delayMs = 0;
  #cancelTimer: () => void = () => {};

  constructor(job: Job, send: SendToNode, clock = systemClock) {
    this.#job = job;
    this.#clock = clock;
    this.#nodes = new Nodes(job.addresses, send, clock);
    this.#epochs = new Epochs(job, this.#nodes, clock);
  }

  /** Starts the first epoch. */
  start(): void {
    this.#begin(0);
  }

  /** Handles what a node's agent says; what belongs to an older epoch is dropped. */
  handle(node: number, event: AgentEvent): void {
    if (this.#phase === 'finished' || this.#nodes.lost.has(node)) return;
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
        return this.#nodes.answered(node);
      case 'publish':
        return this.#nodes.broadcast({ ...event, type: 'published' });
      case 'ready':
        if (event.rank === 0) this.#epochs.ready();
        return;
      case 'states':
        return this.#onStates(event.states);
    }
  }

  /** Ends the job, since a node's launcher cannot be heard. */
  nodeLost(node: number, why: string): void {
    if (this.#phase === 'finished' || this.#nodes.lost.has(node)) return;
    this.#nodes.lose(node);
    const address = this.#nodes.addressOf(node);
    const message = `Expected node ${node} at ${address} to stay but ${why}`;
    this.#endByNode({ kind: 'node-lost', node, address, why }, [], { code: 'ERR_PEER_LOST', message });
    this.#nodes.answered(node);
    this.#settle();
  }

  #onNodeFailed(node: number, { code, message, running }: Extract<AgentEvent, { type: 'failed' }>): void {
    const address = this.#nodes.addressOf(node);
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
    this.#phase = 'preparing';
    this.#epochs.prepare(epoch);
  }

  #onPrepared(node: number, { host, publicKeys }: Extract<AgentEvent, { type: 'prepared' }>): void {
    this.#nodes.named(node, host);
    this.#facts.prepared.set(node, publicKeys);
    if (this.#phase !== 'preparing' || !this.#epochs.isPrepared) return;
    this.#phase = 'running';
    this.#job.watchdog.reset();
    this.#epochs.start();
  }

  #onExit({ exit, error }: Extract<AgentEvent, { type: 'exit' }>): void {
    this.#facts.exited(exit, error, this.#clock.now());
    this.#nodes.broadcast({ type: 'ended', epoch: this.#facts.epoch, rank: exit.rank });
    if (this.#phase === 'running') {
      if (hasFailed(exit)) this.#judgeSoon();
      // Followers end with rank 0; a follower that ends early and well does not stop the others.
      else if (exit.rank === 0) this.#arm(this.#job.shutdownTimeoutMs, () => this.#stopStragglers());
    } else if (exit.rank === 0 && this.#epochs.keepsRankZero && this.#isRestarting) this.#onRankZeroExit(exit);
    this.#settle();
  }

  get #facts(): EpochFacts {
    return this.#epochs.facts;
  }

  /** Whether a restart is due whose ranks are not yet started. */
  get #isRestarting(): boolean {
    return this.#phase === 'regrouping' || this.#phase === 'backing off' || this.#phase === 'preparing';
  }

  /** Rank 0 has ended while the others are away: well, then the job is done; else the whole gang starts anew. */
  #onRankZeroExit(exit: RankExit): void {
    this.#epochs.keepsRankZero = false;
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
    this.#nodes.inspect(this.#facts.epoch, () => {
      onDone();
      this.#settle();
    });
  }

  #fail(end: Extract<GangEnd, { root: Suspect }>): void {
    const { root } = end;
    const failure = failureRecord(root);
    const zero = this.#facts.exitOf(0);
    const isOver = this.#signalled.size > 0 || (zero !== null && !hasFailed(zero));
    const cause = end.kind === 'hung' ? end.hang.message : endText(root);
    const restart = isOver ? null : this.#epochs.restartAfter(root, cause);
    if (restart === null) {
      this.#end = end;
      return this.#stopAll(failure);
    }
    const { number, delayMs } = restart;
    const { keepsRankZero } = this.#epochs;
    this.#delayMs = delayMs;
    const what = keepsRankZero ? 'rank 0 goes on and the others start anew' : 'the whole gang starts its script again';
    this.#notice(`rank ${root.rank} was lost (${cause}): restart ${number} of ${this.#job.maxRestarts} in ${delayMs / 1000} s, ${what}`);
    this.#phase = 'regrouping';
    this.#cancelAll();
    this.#nodes.broadcast({ type: 'stop', epoch: this.#facts.epoch, failure, keepsRankZero });
  }

  #stopStragglers(): void {
    this.#end = { kind: 'stuck', ranks: [...this.#facts.live] };
    this.#stopAll(null);
  }

  #stopAll(failure: FailureRecord | null): void {
    this.#close();
    this.#nodes.broadcast({ type: 'stop', epoch: this.#facts.epoch, failure, keepsRankZero: false });
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
    if (signal === 'SIGUSR2') return this.#nodes.broadcast({ type: 'signal', signal });
    const isFirst = this.#signalled.size === 0;
    const isSecond = this.#signalled.has(node);
    this.#signalled.add(node);
    if (isSecond) this.#force();
    if (!isFirst) return this.#settle();
    const what = signal === 'SIGPIPE' ? 'the reader of its standard output has left' : `it received ${signal}`;
    this.#nodes.broadcast({ type: 'notice', lines: [`node ${node} (${this.#nodes.hostOf(node)}) ends the job: ${what}`] }, node);
    if (this.#phase === 'running' || this.#isRestarting) {
      this.#end = { kind: 'signalled', signal, wasForced: false };
      this.#close();
      const { shutdownTimeoutMs, failureTimeoutMs } = this.#job;
      this.#arm(signal === 'SIGPIPE' ? failureTimeoutMs : shutdownTimeoutMs, () => this.#force());
    }
    this.#nodes.broadcast({ type: 'signal', signal: signal === 'SIGPIPE' ? 'SIGTERM' : signal });
    this.#settle();
  }

  #force(): void {
    if (this.#end.kind === 'signalled') this.#end = { ...this.#end, wasForced: true };
    this.#nodes.broadcast({ type: 'signal', signal: 'SIGKILL' });
  }

  /** Goes on once the ranks that were waited for have ended. */
  #settle(): void {
    const { live } = this.#facts;
    if (this.#phase === 'regrouping') {
      if (live.size > (this.#epochs.keepsRankZero ? 1 : 0)) return;
      this.#phase = 'backing off';
      this.#arm(this.#delayMs, () => this.#begin(this.#facts.epoch + 1));
    } else if (live.size === 0 && this.#phase === 'judging') {
      if (this.#nodes.isInspecting) return;
      this.#cancelTimer();
      this.#inspect(() => this.#judge());
    } else if (live.size === 0 && (this.#phase === 'running' || this.#phase === 'ending')) {
      if (this.#facts.isClosed(this.#nodes.lost)) this.#finish();
    }
  }

  #finish(): void {
    this.#phase = 'finished';
    this.#cancelAll();
    const end = this.#end;
    const exitCode = exitCodeOf(end, this.#epochs.exits);
    const report =
      end.kind === 'finished' || end.kind === 'signalled'
        ? null
        : JSON.stringify(jobReport(this.#job, this.#epochs, this.#nodes, { end, exitCode }));
    this.#nodes.broadcast({ type: 'finish', exitCode, report });
  }

  #notice(...lines: string[]): void {
    this.#nodes.broadcast({ type: 'notice', lines });
  }

  #arm(delayMs: number, action: () => void): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(delayMs, action);
  }

  #cancelAll(): void {
    this.#cancelTimer();
    this.#epochs.suspend();
    this.#nodes.cancelInspection();
  }
}

function rankOf(event: AgentEvent): number | null {
  if (event.type === 'exit') return event.exit.rank;
  return event.type === 'closed' || event.type === 'ready' ? event.rank : null;
}
