/**
 * Supervises the ranks of one gang until all have ended: the first failure, a signal or the end of rank 0 stops the
 * others.
 */
import { readRankError, writeFailure, writeRankEnd } from '../protocol/failure.ts';
import { areInterruptsClaimed } from '../protocol/interrupts.ts';
import type { LaunchOptions } from './options.ts';
import type { RankExit, RankProcess } from './rank-process.ts';
import { type GangEnd, hasFailed, rootCause, type Suspect } from './root-cause.ts';

/** Failures within this time of each other are compared to find the first. */
const simultaneousMs = 50;

export class Supervisor {
  readonly #ranks: readonly RankProcess[];
  readonly #options: LaunchOptions;
  readonly #runDir: string;
  readonly #ended: Promise<void>;
  #end: GangEnd = { kind: 'finished' };
  /** Whether a failure was seen and the first one is not yet determined. */
  #isJudging = false;
  #numSignals = 0;
  #timer: NodeJS.Timeout | null = null;

  /** `ranks` are running, or failed to start. */
  constructor(ranks: readonly RankProcess[], options: LaunchOptions, runDir: string) {
    this.#ranks = ranks;
    this.#options = options;
    this.#runDir = runDir;
    this.#ended = Promise.all(ranks.map((rank) => this.#watch(rank))).then(() => undefined);
  }

  /** Resolves when every rank has ended. */
  async ended(): Promise<GangEnd> {
    await this.#ended;
    if (this.#isJudging) this.#judge();
    this.#disarm();
    return this.#end;
  }

  /**
   * Handles a signal to the gang: the first is forwarded and leaves ranks time to end; the next kills. SIGINT does not
   * end the gang where rank 0 answers it. SIGPIPE, the reader of the output has left, stops it as a failure does: nobody
   * wants what is in flight.
   */
  stop(signal: NodeJS.Signals): void {
    if (signal === 'SIGINT' && this.#numSignals === 0 && areInterruptsClaimed(this.#runDir)) {
      for (const rank of this.#ranks) if (rank.plan.rank === 0) rank.kill(signal);
      return;
    }
    this.#numSignals++;
    if (this.#numSignals > 1) return this.#force();
    if (this.#end.kind === 'finished' && !this.#isJudging) {
      this.#end = { kind: 'signalled', signal, wasForced: false };
      const { shutdownTimeoutMs, failureTimeoutMs } = this.#options;
      this.#arm(signal === 'SIGPIPE' ? failureTimeoutMs : shutdownTimeoutMs, () => this.#force());
    }
    this.signal(signal === 'SIGPIPE' ? 'SIGTERM' : signal);
  }

  /** Sends a signal to every rank that still runs. */
  signal(signal: NodeJS.Signals): void {
    for (const rank of this.#ranks) rank.kill(signal);
  }

  #watch(rank: RankProcess): Promise<void> {
    return new Promise((resolve) => {
      const onExit = (exit: RankExit): void => {
        this.#onExit(exit);
        resolve();
      };
      if (rank.exit !== null) onExit(rank.exit);
      else rank.once('exit', onExit);
    });
  }

  #onExit(exit: RankExit): void {
    writeRankEnd(this.#runDir, exit.rank);
    if (this.#end.kind !== 'finished' || this.#isJudging) return;
    if (hasFailed(exit)) {
      this.#isJudging = true;
      this.#arm(simultaneousMs, () => this.#judge());
    } else if (exit.rank === 0) {
      // Followers end with rank 0; a follower that ends early and well does not stop the others.
      this.#arm(this.#options.shutdownTimeoutMs, () => this.#stopStragglers());
    }
  }

  #judge(): void {
    this.#isJudging = false;
    const suspects = this.#ranks
      .map(({ plan: { rank }, exit }): Suspect => ({ rank, exit, error: readRankError(this.#runDir, rank) }))
      .filter(({ exit, error }) => (exit === null ? error !== null : hasFailed(exit)));
    const root = rootCause(suspects);
    this.#end = { kind: 'failed', root };
    const { rank, exit, error } = root;
    writeFailure(this.#runDir, {
      rank,
      exitCode: exit?.exitCode ?? null,
      signal: exit?.signal ?? null,
      code: error?.code ?? null,
      message: error?.message ?? exit?.spawnError?.message ?? null,
    });
    this.#terminate();
  }

  #stopStragglers(): void {
    this.#end = { kind: 'stuck', ranks: this.#ranks.filter(({ exit }) => exit === null).map(({ plan }) => plan.rank) };
    this.#terminate();
  }

  #terminate(): void {
    this.signal('SIGTERM');
    this.#arm(this.#options.failureTimeoutMs, () => this.signal('SIGKILL'));
  }

  #force(): void {
    if (this.#end.kind === 'signalled') this.#end = { ...this.#end, wasForced: true };
    this.signal('SIGKILL');
  }

  #arm(delayMs: number, action: () => void): void {
    this.#disarm();
    this.#timer = setTimeout(action, delayMs);
  }

  #disarm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
