/** Progress of a load, as `LLM.load({ onProgress })` reports it. */
import { callbackError, type NdsError } from '../protocol/errors.ts';

/** What a load has done so far. */
export interface LoadProgress {
  /** `download`: files from the hub. `weights`: tensors read and packed, on all ranks together. */
  readonly phase: 'download' | 'weights';
  /** Of the file, in a download. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Name of the file, in a download. */
  readonly file: string | null;
}

export type OnLoadProgress = (progress: LoadProgress) => void;

/** The caller's function; what it throws becomes an NdsError `ERR_USAGE`. */
export function guarded(report: OnLoadProgress): OnLoadProgress {
  return (progress) => {
    try {
      report(progress);
    } catch (error) {
      throw callbackError('ERR_USAGE', 'onProgress', error);
    }
  };
}

/** Reports how many bytes of all weights are packed. */
export class WeightsProgress {
  readonly #report: OnLoadProgress;
  readonly #totalBytes: number;
  /** What the caller's function threw; it is not called again. */
  failure: NdsError | null = null;

  /** @param totalBytes - of the weights of all ranks */
  constructor(report: OnLoadProgress, totalBytes: number) {
    [this.#report, this.#totalBytes] = [report, totalBytes];
  }

  update(loadedBytes: number): void {
    if (this.failure !== null) return;
    const totalBytes = this.#totalBytes;
    try {
      guarded(this.#report)({ phase: 'weights', doneBytes: Math.min(loadedBytes, totalBytes), totalBytes, file: null });
    } catch (error) {
      this.failure = error as NdsError;
    }
  }

  /** All ranks have loaded. @throws NdsError `ERR_USAGE` when the caller's function threw. */
  end(): void {
    this.update(this.#totalBytes);
    if (this.failure !== null) throw this.failure;
  }
}
