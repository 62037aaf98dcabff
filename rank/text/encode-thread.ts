/** Encodes long texts in a thread, so that they hold up nothing else. */
import type { Worker } from 'node:worker_threads';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import { startThread } from '../thread.ts';
import type { EncodeJob, EncodeReply, EncodeWorkerData } from './encode-worker.ts';

/** The caller of one job. */
interface Waiting {
  resolve(ids: number[]): void;
  reject(error: NdsError): void;
}

/**
 * A thread that is started with the first text, and again after a failure. It keeps the process alive while it encodes
 * only.
 */
export class EncodeThread {
  readonly #folder: string;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #nextJobId = 0;
  #isClosed = false;

  /** @param folder - of the tokenizer's files, which the thread reads itself */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Token ids of a text. @throws NdsError as `Tokenizer.encode`; `ERR_CLOSED` after `close()`. */
  encode(text: string, addSpecialTokens: boolean): Promise<number[]> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) {
        reject(closedError());
        return;
      }
      const worker = this.#start();
      const jobId = this.#nextJobId++;
      this.#waiting.set(jobId, { resolve, reject });
      worker.ref();
      worker.postMessage({ jobId, text, addSpecialTokens } satisfies EncodeJob);
    });
  }

  /** Ends the thread; jobs in flight reject with `ERR_CLOSED`. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#stop(closedError());
  }

  #start(): Worker {
    if (this.#worker !== null) return this.#worker;
    const workerData: EncodeWorkerData = { folder: this.#folder };
    const worker = startThread('./encode-worker', import.meta.url, { name: 'tokenizer', workerData });
    this.#worker = worker;
    worker.on('message', (reply: EncodeReply) => this.#settle(reply));
    worker.on('error', (error) => void this.#stop(toNdsError(error)));
    worker.on('exit', () => void this.#stop(new NdsError('ERR_INTERNAL', 'Expected the thread of the tokenizer to run but it ended')));
    return worker;
  }

  #settle(reply: EncodeReply): void {
    const waiting = this.#waiting.get(reply.jobId);
    this.#waiting.delete(reply.jobId);
    if (this.#waiting.size === 0) this.#worker?.unref();
    if (reply.type === 'ids') waiting?.resolve(Array.from(reply.ids));
    else waiting?.reject(new NdsError(reply.code, reply.message));
  }

  async #stop(cause: NdsError): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(cause);
    this.#waiting.clear();
    worker?.removeAllListeners();
    // An error during termination concerns no caller.
    worker?.on('error', () => {});
    await worker?.terminate();
  }
}

function closedError(): NdsError {
  return new NdsError('ERR_CLOSED', 'Expected an open LLM but it was closed');
}
