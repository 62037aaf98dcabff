/** The client's record of an unfinished request: enough to submit it again to an engine that knows nothing of it. */
import { type EngineRequest, openSamples } from '../scheduler/request.ts';
import type { RequestEvent, RequestHandler } from './engine-client.ts';

interface OpenSample {
  readonly outputTokenIds: number[];
  numCachedTokens: number;
}

export class OpenRequest {
  readonly handler: RequestHandler;
  readonly #request: EngineRequest;
  /** Unfinished samples, by index. */
  readonly #samples = new Map<number, OpenSample>();
  /** Rows of the prompt reported so far. */
  #numRows: number;

  constructor(request: EngineRequest, handler: RequestHandler) {
    this.#request = request;
    this.handler = handler;
    this.#numRows = request.reported?.numRows ?? 0;
    for (const index of openSamples(request)) {
      const { outputTokenIds = [], numCachedTokens = 0 } = request.reported?.samples[index] ?? {};
      this.#samples.set(index, { outputTokenIds: [...outputTokenIds], numCachedTokens });
    }
  }

  get isDone(): boolean {
    return this.#samples.size === 0;
  }

  isOpen(index: number): boolean {
    return this.#samples.has(index);
  }

  /** The request as it goes on: what was reported of it is not reported again. */
  get remainder(): EngineRequest {
    const request = this.#request;
    const numSamples = request.type === 'generate' ? request.n : 0;
    const samples = Array.from({ length: numSamples }, (_, index) => this.#samples.get(index) ?? null);
    return { ...request, reported: { numRows: this.#numRows, samples } };
  }

  /** Notes an event on its way to the caller. */
  note(event: RequestEvent): void {
    if (event.type === 'promptLogprobs') this.#numRows += event.logprobs.length;
    else if (event.type === 'rows') {
      this.#numRows += event.numRows;
      if (event.finished) this.end(0);
    } else {
      const sample = this.#samples.get(event.index);
      sample?.outputTokenIds.push(...event.tokenIds);
      if (sample !== undefined) sample.numCachedTokens = event.numCachedTokens;
      if (event.finishReason !== null) this.end(event.index);
    }
  }

  /** Marks a sample done; returns whether it was open. */
  end(index: number): boolean {
    return this.#samples.delete(index);
  }
}
