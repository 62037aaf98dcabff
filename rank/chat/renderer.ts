/** Renders chat templates one at a time in a thread, which is terminated when one takes too long. */
import type { Worker } from 'node:worker_threads';
import { NdsError } from '../../protocol/errors.ts';
import { startThread } from '../thread.ts';
import { TemplateError } from './jinja/errors.ts';
import type { RenderJob, RenderReply } from './render-worker.ts';

/** Limits of the thread's heap and stack. */
const resourceLimits = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 32, stackSizeMb: 4 };

/** The caller waiting for the thread's next reply. */
interface Waiting {
  resolve(reply: RenderReply): void;
  reject(error: Error): void;
}

/** A thread that is started with the first job, and again after a termination. It does not keep the process alive. */
export class ChatRenderer {
  readonly #timeoutMs: number;
  #worker: Worker | null = null;
  #waiting: Waiting | null = null;
  /** Settles when the newest job ends. */
  #last: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  /** @param timeoutMs - max time of one job, not counting the start of the thread */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** @throws TemplateError for a template that fails; NdsError `ERR_CLOSED` after `close()`. */
  render(job: RenderJob): Promise<string> {
    const result = this.#last.then(() => this.#run(job));
    this.#last = result.catch(() => {});
    return result;
  }

  /** Ends the thread; jobs in flight or queued reject with `ERR_CLOSED`. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#waiting?.reject(closedError());
    await this.#stop();
  }

  async #run(job: RenderJob): Promise<string> {
    if (this.#isClosed) throw closedError();
    const reply = await this.#ask(job).catch(async (error: unknown) => {
      await this.#stop();
      throw error;
    });
    if (reply.type === 'text') return reply.text;
    throw reply.type === 'error'
      ? new TemplateError(reply.message, reply.fault)
      : new NdsError('ERR_INTERNAL', 'Expected a text but received none');
  }

  async #ask(job: RenderJob): Promise<RenderReply> {
    if (this.#worker === null) {
      this.#start();
      await this.#receive();
    }
    const worker = this.#worker;
    worker?.ref();
    worker?.postMessage(job);
    let timer: NodeJS.Timeout | undefined;
    try {
      const timeout = () => this.#waiting?.reject(new TemplateError(`no end after ${this.#timeoutMs} ms`, 'template'));
      timer = setTimeout(timeout, this.#timeoutMs);
      return await this.#receive();
    } finally {
      clearTimeout(timer);
      worker?.unref();
    }
  }

  #receive(): Promise<RenderReply> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #start(): void {
    const worker = startThread('./render-worker', import.meta.url, { resourceLimits, name: 'chat-template' });
    this.#worker = worker;
    worker.on('message', (reply: RenderReply) => this.#waiting?.resolve(reply));
    // Usually out of memory.
    worker.on('error', (error) => this.#waiting?.reject(new TemplateError(error.message, 'template')));
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = null;
      this.#waiting?.reject(new TemplateError('the thread that renders it ended', 'template'));
    });
  }

  async #stop(): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    worker?.removeAllListeners();
    // An error during termination concerns no caller.
    worker?.on('error', () => {});
    await worker?.terminate();
  }
}

function closedError(): NdsError {
  return new NdsError('ERR_CLOSED', 'Expected an open LLM but it was closed');
}
