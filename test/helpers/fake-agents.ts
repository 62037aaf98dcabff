/** A coordinator with agents that only answer, and a clock that a test turns. */
import type { AgentCommand, AgentEvent, RankExit } from '../../launcher/agent-messages.ts';
import type { Clock } from '../../launcher/clock.ts';
import { Coordinator, type Job } from '../../launcher/coordinator.ts';
import type { ErrorReport } from '../../launcher/error-report.ts';
import type { RankState } from '../../launcher/rank-state.ts';
import { describeError, type RankErrorRecord } from '../../protocol/failure.ts';

/** Calls what is due when the test lets time pass. */
export class FakeClock implements Clock {
  #now = 1_000_000;
  readonly #timers = new Map<object, { readonly at: number; readonly action: () => void }>();

  now(): number {
    return this.#now;
  }

  after(delayMs: number, action: () => void): () => void {
    const key = {};
    this.#timers.set(key, { at: this.#now + delayMs, action });
    return () => this.#timers.delete(key);
  }

  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      const [key, { at, action }] = due;
      this.#timers.delete(key);
      this.#now = at;
      action();
    }
    this.#now = end;
  }
}

export const error = (rank: number, code: string, name = 'NdsError'): RankErrorRecord => ({
  ...describeError(rank, new Error(`of rank ${rank}`)),
  code,
  name,
});

/** One job of fake nodes. Every rank that is told to start runs; it ends when the test says so. */
export class FakeJob {
  readonly clock = new FakeClock();
  readonly coordinator: Coordinator;
  readonly sent: { readonly node: number; readonly command: AgentCommand }[] = [];
  /** Milliseconds that a node's clock is ahead. */
  readonly clockError = new Map<number, number>();
  /** Nodes that do not answer. */
  readonly silent: Set<number>;
  /** Records on the nodes' disks. */
  readonly errors: RankErrorRecord[] = [];
  readonly states: RankState[] = [];
  epoch = 0;

  readonly #localWorldSize: number;

  constructor(nnodes: number, localWorldSize: number, change: Partial<Job> = {}, silent: readonly number[] = []) {
    this.silent = new Set(silent);
    this.#localWorldSize = localWorldSize;
    const job: Job = {
      runId: 'job',
      command: ['a.ts'],
      localWorldSize,
      addresses: Array.from({ length: nnodes }, (_, node) => `10.0.0.${node}`),
      maxRestarts: 0,
      restartBackoffMs: 1000,
      shutdownTimeoutMs: 25_000,
      failureTimeoutMs: 3000,
      watchdog: { reset: () => {}, take: () => null },
      ...change,
    };
    this.coordinator = new Coordinator(job, (node, command) => this.#onCommand(node, command), this.clock);
    this.coordinator.start();
  }

  nodeOf(rank: number): number {
    return Math.floor(rank / this.#localWorldSize);
  }

  emit(node: number, event: AgentEvent): void {
    this.coordinator.handle(node, event);
  }

  /** Ends a rank, whose output is complete at once. */
  exit(rank: number, how: number | NodeJS.Signals, record: RankErrorRecord | null = null, epoch = this.epoch): void {
    const [exitCode, signal] = typeof how === 'number' ? [how, null] : [null, how];
    const exit: RankExit = { rank, pid: 100 + rank, exitCode, signal, spawnError: null, time: this.timeOn(this.nodeOf(rank)) };
    this.emit(this.nodeOf(rank), { type: 'exit', epoch, exit, error: record });
    const output = { stderrTail: [`tail of ${rank}`], outOfMemoryKills: null, wasKilledByLauncher: false };
    this.emit(this.nodeOf(rank), { type: 'closed', epoch, rank, ...output });
  }

  timeOn(node: number): number {
    return this.clock.now() + (this.clockError.get(node) ?? 0);
  }

  /** Commands of one type, in order. */
  commands<Type extends AgentCommand['type']>(type: Type): (Extract<AgentCommand, { type: Type }> & { node: number })[] {
    return this.sent.flatMap(({ node, command }) => (command.type === type ? [{ ...command, node } as never] : []));
  }

  /** The lines of all notices on node 0. */
  get notices(): string[] {
    return this.commands('notice').flatMap(({ node, lines }) => (node === 0 ? lines : []));
  }

  /** Exit code and report; null while the job runs. */
  get end(): { readonly exitCode: number; readonly report: ErrorReport | null } | null {
    const [finish] = this.commands('finish');
    return finish === undefined ? null : { exitCode: finish.exitCode, report: JSON.parse(finish.report ?? 'null') as ErrorReport | null };
  }

  #onCommand(node: number, command: AgentCommand): void {
    this.sent.push({ node, command });
    if (command.type === 'start') this.epoch = command.epoch;
    if (this.silent.has(node)) return;
    if (command.type === 'prepare') this.prepared(node, command.epoch);
    if (command.type === 'inspect') this.inspected(node, command.epoch);
  }

  prepared(node: number, epoch: number): void {
    const publicKeys = Array.from({ length: this.#localWorldSize }, (_, index) => `${epoch}/${node}/${index}`);
    this.emit(node, { type: 'prepared', epoch, host: `host${node}`, publicKeys });
  }

  inspected(node: number, epoch: number): void {
    const ofNode = <T extends { readonly rank: number }>(all: readonly T[]) => all.filter(({ rank }) => this.nodeOf(rank) === node);
    this.emit(node, { type: 'inspected', epoch, time: this.timeOn(node), errors: ofNode(this.errors), states: ofNode(this.states) });
  }
}
