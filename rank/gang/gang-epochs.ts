/** The epochs of a gang of several ranks, as rank 0 sees them: opens each in turn, and tells a loss from the end. */
import type { GangInfo } from '../../protocol/control.ts';
import { deferred } from '../../protocol/deferred.ts';
import { isPermanentCode, NdsError, toNdsError } from '../../protocol/errors.ts';
import type { FailureRecord } from '../../protocol/failure.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { Control } from './control.ts';
import { GangEpoch } from './gang-epoch.ts';
import { peerLost, watchFailure, watchPeers } from './peer-watch.ts';
import { ReportedError } from './process-group.ts';

/** Errors of this rank that a lost rank may have caused. */
const echoes: readonly NdsError['code'][] = ['ERR_PEER_LOST', 'ERR_STEP_TIMEOUT'];

/** What the user of the epochs does in each. */
export interface EpochsUser {
  /** Makes an epoch whose ranks have met like the one before. */
  prepare(epoch: GangEpoch): Promise<void>;
  /** An epoch is lost; another follows. */
  onLost(): void;
  /** An epoch after a loss is whole. */
  onResumed(): void;
  /** No epoch follows. */
  onFailed(cause: NdsError): void;
}

export class GangEpochs {
  readonly #env: RankEnv;
  readonly #control: Control;
  readonly #user: EpochsUser;
  #newest: GangEpoch | null = null;
  /** Run folder of the newest epoch. */
  #runDir: string;
  /** Failures that did not end the gang. */
  readonly #losses: FailureRecord[] = [];
  #whole: Promise<GangEpoch>;
  #isOpening = true;
  #failure: NdsError | null = null;
  readonly #broken = deferred<never>();
  /** An error that awaits the launcher's verdict, and how long. */
  #suspicion: { readonly cause: NdsError; readonly waitMs: number; readonly timer: NodeJS.Timeout } | null = null;
  #stopWatching: () => void = () => {};

  constructor(env: RankEnv, control: Control, user: EpochsUser) {
    this.#env = env;
    this.#runDir = env.runDir;
    this.#control = control;
    this.#user = user;
    this.#broken.promise.catch(() => {});
    control.on('lost', (failure) => this.#onLost(failure));
    this.#whole = this.#open();
    this.#whole.catch(() => {});
  }

  /** The newest epoch, whole or not; null before the first. */
  get newest(): GangEpoch | null {
    return this.#newest;
  }

  /** Whether the newest epoch is not whole yet. */
  get isOpening(): boolean {
    return this.#isOpening;
  }

  /** Why no epoch follows; null while one may. */
  get failure(): NdsError | null {
    return this.#failure;
  }

  /** The newest epoch once it is whole; keeps the process alive meanwhile. @throws NdsError why no epoch follows. */
  async whole(): Promise<GangEpoch> {
    const hold = holdProcess();
    try {
      return await this.#whole;
    } finally {
      hold.release();
    }
  }

  /** Settles once an epoch that brought an error is lost. @throws NdsError the error, when no epoch follows. */
  async judge(epoch: GangEpoch, error: unknown): Promise<void> {
    if (epoch.cause === null) {
      this.suspect(toNdsError(error));
      await epoch.ended();
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /**
   * Takes an error of the newest epoch. One that a lost rank may have caused awaits the launcher's verdict, a loss or the
   * end, for at most `waitMs`; any other is the end. Without restarts only a rank that left a collective is awaited: the
   * launcher is about to say why it did.
   */
  suspect(error: NdsError, waitMs = this.#verdictMs): void {
    if (this.#failure !== null || this.#newest === null || this.#newest.cause !== null) return;
    const isDeparture = error.code === 'ERR_CLOSED';
    const cause = isDeparture ? new NdsError('ERR_PEER_LOST', error.message, { cause: error }) : error;
    const mayFollow = cause instanceof ReportedError ? !isPermanentCode(cause.exitCode) : echoes.includes(cause.code);
    if (!mayFollow || (this.#env.maxRestarts === 0 && !isDeparture)) return this.#break(cause);
    const before = this.#suspicion;
    if (before !== null && before.waitMs <= waitMs) return;
    this.#clearSuspicion();
    const first = before?.cause ?? cause;
    this.#suspicion = { cause: first, waitMs, timer: setTimeout(() => this.#break(first), waitMs) };
  }

  /** How long the launcher may take for its verdict: a restart needs the other ranks to end and to start. */
  get #verdictMs(): number {
    const { maxRestarts, failureTimeoutMs, startupTimeoutMs } = this.#env;
    return maxRestarts === 0 ? failureTimeoutMs : failureTimeoutMs + startupTimeoutMs;
  }

  /** Opens the epoch that runs, then those that follow until one is whole. */
  async #open(): Promise<GangEpoch> {
    this.#isOpening = true;
    try {
      for (;;) {
        const epoch = await this.#next();
        try {
          await epoch.meet();
          await this.#user.prepare(epoch);
          return epoch;
        } catch (error) {
          await this.judge(epoch, error);
        }
      }
    } catch (error) {
      this.#break(toNdsError(error));
      throw this.#failure ?? error;
    } finally {
      this.#isOpening = false;
    }
  }

  /** Opens the epoch that runs once this rank has left the one before. */
  async #next(): Promise<GangEpoch> {
    if (this.#newest !== null) await this.#leave(this.#newest);
    for (;;) {
      const info = this.#control.live ?? (await Promise.race([this.#nextGang(), this.#broken.promise]));
      // Lost before it was opened.
      if (info !== this.#control.live) continue;
      const epoch = GangEpoch.open(this.#env, info, (error) => this.suspect(error));
      this.#newest = epoch;
      this.#runDir = info.runDir;
      this.#stopWatching();
      this.#stopWatching = watchPeers(
        { runDir: info.runDir, worldSize: this.#env.worldSize },
        { onFailed: (reason) => this.#break(reason), onEnded: (reason) => this.suspect(reason, this.#env.failureTimeoutMs) },
      );
      return epoch;
    }
  }

  #nextGang(): Promise<GangInfo> {
    return new Promise<GangInfo>((resolve) => this.#control.once('gang', resolve));
  }

  async #leave(epoch: GangEpoch): Promise<void> {
    const { stepTimeoutMs } = this.#env;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const message = `Expected rank 0 to leave a step of lost ranks within ${stepTimeoutMs / 1000} s but it did not`;
      timer = setTimeout(() => reject(new NdsError('ERR_STEP_TIMEOUT', message)), stepTimeoutMs);
    });
    try {
      await Promise.race([epoch.release(), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #onLost(failure: FailureRecord): void {
    if (this.#failure !== null) return;
    this.#clearSuspicion();
    // A signal ends the process as ever, unless the launcher has found another failure.
    this.#stopWatching();
    this.#losses.push(failure);
    const runDirs = [...new Set([this.#runDir, this.#env.runDir])];
    this.#stopWatching = watchFailure(runDirs, this.#losses, (reason) => this.#break(reason));
    this.#newest?.abandon(peerLost(failure), true);
    this.#user.onLost();
    if (this.#isOpening) return;
    this.#whole = this.#open();
    this.#whole.then(
      () => this.#user.onResumed(),
      () => {},
    );
  }

  /** Ends the epochs: ranks in a collective cannot be released otherwise. An error that a rank reported comes first. */
  #break(cause: NdsError): void {
    if (this.#failure !== null) return;
    const first = this.#suspicion?.cause;
    this.#failure = first instanceof ReportedError ? first : cause;
    this.#clearSuspicion();
    this.#newest?.abandon(this.#failure, false);
    this.#broken.reject(this.#failure);
    this.#user.onFailed(this.#failure);
  }

  #clearSuspicion(): void {
    clearTimeout(this.#suspicion?.timer);
    this.#suspicion = null;
  }
}

/** Keeps the process alive until released. */
export function holdProcess(): { release(): void } {
  const timer = setInterval(() => {}, 2 ** 30);
  return { release: () => clearInterval(timer) };
}
