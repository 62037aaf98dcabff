/** Counts what a call on several prompts has done, and reports it to the caller. */
import { callbackError, type NdsError } from '../../protocol/errors.ts';
import type { GenerateOptions } from './request-options.ts';

/** Between two reports while no prompt finishes. */
const reportMs = 100;

export class ProgressCounter {
  readonly #report: NonNullable<GenerateOptions['onProgress']>;
  readonly #total: number;
  readonly #onError: (error: NdsError) => void;
  #finished = 0;
  #numTokens = 0;
  #reportedAt = performance.now();
  #hasFailed = false;

  /** `onError` is called once if `report` throws; nothing is reported afterwards. */
  constructor(report: NonNullable<GenerateOptions['onProgress']>, total: number, onError: (error: NdsError) => void) {
    [this.#report, this.#total, this.#onError] = [report, total, onError];
  }

  /** Counts the tokens of a chunk, the last of its prompt or not. */
  add(numTokens: number, finished: boolean): void {
    this.#numTokens += numTokens;
    if (finished) this.#finished++;
    const now = performance.now();
    if (this.#hasFailed || (!finished && now - this.#reportedAt < reportMs)) return;
    this.#reportedAt = now;
    try {
      this.#report({ finished: this.#finished, total: this.#total, numTokens: this.#numTokens });
    } catch (error) {
      this.#hasFailed = true;
      this.#onError(callbackError('ERR_REQUEST', 'onProgress', error));
    }
  }
}
