/** Whether and when a gang starts anew after a failure. Pure. */
import { exitCodes, isNdsErrorCode, isPermanentCode } from '../protocol/errors.ts';
import type { Suspect } from './root-cause.ts';

/** A restart that is due, or why there is none; the reason is empty where none was asked for. */
export type Decision =
  | { readonly isDue: true; readonly number: number; readonly delayMs: number }
  | { readonly isDue: false; readonly reason: string };

const maxBackoffMs = 30_000;

/** How long a gang must run for its earlier failures to be forgiven. */
export const healthyMs = 600_000;

/** Failures before a gang was ever ready that a restart cannot help. */
const maxDeathsBeforeReady = 2;

export class RestartPolicy {
  readonly #maxRestarts: number;
  readonly #backoffMs: number;
  #numUsed = 0;
  #numDeathsBeforeReady = 0;
  #isReady = false;

  constructor({ maxRestarts, restartBackoffMs }: { readonly maxRestarts: number; readonly restartBackoffMs: number }) {
    this.#maxRestarts = maxRestarts;
    this.#backoffMs = restartBackoffMs;
  }

  /** A gang has started. */
  started(): void {
    this.#isReady = false;
  }

  /** It has loaded a model. */
  ready(): void {
    this.#isReady = true;
    this.#numDeathsBeforeReady = 0;
  }

  /** It has run for `healthyMs`. */
  forgive(): void {
    this.ready();
    this.#numUsed = 0;
  }

  /** Counts a failure. */
  decide(failure: Suspect): Decision {
    if (this.#maxRestarts === 0) return { isDue: false, reason: '' };
    if (isPermanent(failure)) return { isDue: false, reason: 'the error would come again' };
    if (!this.#isReady) this.#numDeathsBeforeReady++;
    if (this.#numUsed >= this.#maxRestarts)
      return { isDue: false, reason: `restart ${this.#numUsed} of ${this.#maxRestarts} was the last` };
    if (this.#numDeathsBeforeReady >= maxDeathsBeforeReady) {
      return { isDue: false, reason: `${this.#numDeathsBeforeReady} times in a row it ended before a model was loaded` };
    }
    const delayMs = Math.min(maxBackoffMs, this.#backoffMs * 2 ** this.#numUsed);
    this.#numUsed++;
    return { isDue: true, number: this.#numUsed, delayMs };
  }
}

function isPermanent({ error, exit }: Suspect): boolean {
  if (exit !== null && exit.spawnError?.code === 'ENOENT') return true;
  return error !== null && error.name === 'NdsError' && isNdsErrorCode(error.code) && isPermanentCode(exitCodes[error.code]);
}
