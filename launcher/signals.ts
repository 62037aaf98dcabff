/** Forwarding of signals from the launcher to its ranks. */
import { isHangupIgnored } from './hangup.ts';

/** Receiver of signals. */
export interface SignalTarget {
  stop(signal: NodeJS.Signals): void;
  signal(signal: NodeJS.Signals): void;
}

const stopSignals: readonly NodeJS.Signals[] = isHangupIgnored(process.env) ? ['SIGTERM', 'SIGINT'] : ['SIGTERM', 'SIGINT', 'SIGHUP'];

/** Listens from its construction, so that signals during start-up reach the ranks too. */
export class SignalRouter {
  #target: SignalTarget | null = null;
  readonly #waiting: NodeJS.Signals[] = [];

  constructor() {
    for (const signal of stopSignals) process.on(signal, this.deliver);
    process.on('SIGUSR2', this.#onState);
    process.on('SIGWINCH', this.#onResize);
    // Node's default opens its inspector, to anybody on this machine; Slurm sends the signal before its time limit.
    process.on('SIGUSR1', () => {});
  }

  /** Sets the receiver of signals; earlier ones are delivered first. */
  connect(target: SignalTarget): void {
    this.#target = target;
    for (const signal of this.#waiting.splice(0)) target.stop(signal);
  }

  /** From now on a stop signal ends this process at once, by its default action, after `release`. */
  endWith(release: () => void): void {
    const stop = (signal: NodeJS.Signals): void => {
      this.dispose();
      release();
      process.kill(process.pid, signal);
    };
    this.#target = { stop, signal: () => {} };
  }

  dispose(): void {
    for (const signal of stopSignals) process.off(signal, this.deliver);
    process.off('SIGUSR2', this.#onState);
    process.off('SIGWINCH', this.#onResize);
  }

  /** Stops the gang as this signal does; `SIGPIPE`, which Node ignores, comes from who writes the output. */
  readonly deliver = (signal: NodeJS.Signals): void => {
    if (this.#target === null) this.#waiting.push(signal);
    else this.#target.stop(signal);
  };

  readonly #onState = (): void => this.#target?.signal('SIGUSR2');

  /** A terminal tells its foreground processes only, and ranks are in groups of their own. */
  readonly #onResize = (): void => this.#target?.signal('SIGWINCH');
}
