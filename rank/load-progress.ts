/** Progress of a load, as `LLM.load({ onProgress })` reports it. */

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
