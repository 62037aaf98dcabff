/** An `LLM`'s side of the conversation with its engine: who waits for which request. */
import type { NdsError } from '../../protocol/errors.ts';
import type { GenerateRequest, LogitsRequest } from '../scheduler/request.ts';
import type { Engine } from './engine.ts';
import { type EngineEvent, fromErrorInfo } from './messages.ts';
import type { EngineStats } from './stats.ts';

/** A request before it has a number. */
export type NewRequest = Omit<GenerateRequest, 'requestId'> | Omit<LogitsRequest, 'requestId'>;

/** What a request brings. */
export type RequestEvent = Extract<EngineEvent, { type: 'tokens' | 'promptLogprobs' | 'logits' }>;

/** Who waits for it. Nothing follows an error, nor the last event of the last sample. */
export interface RequestHandler {
  onEvent(event: RequestEvent): void;
  onError(error: NdsError): void;
}

interface OpenRequest {
  readonly handler: RequestHandler;
  /** Samples of which more is to come. */
  readonly samples: Set<number>;
}

/** Numbers requests, and hands what the engine says to whoever waits for it. */
export class EngineClient {
  readonly #engine: Engine;
  readonly #requests = new Map<number, OpenRequest>();
  #stats: EngineStats;
  #nextRequestId = 0;
  #failure: NdsError | null = null;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#stats = engine.stats;
    engine.listen((event) => this.#onEvent(event));
  }

  get stats(): EngineStats {
    return this.#stats;
  }

  /** @throws NdsError the cause, once the engine was closed or has failed. */
  checkOpen(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Hands a request to the engine; returns its number. */
  submit(request: NewRequest, handler: RequestHandler): number {
    const requestId = this.#nextRequestId++;
    const numSamples = request.type === 'generate' ? request.n : 1;
    this.#requests.set(requestId, { handler, samples: new Set(Array.from({ length: numSamples }, (_, index) => index)) });
    this.#engine.post({ ...request, requestId });
    return requestId;
  }

  /** Drops a request that nobody waits for any more; nothing when it is done. */
  abort(requestId: number): void {
    if (this.#requests.delete(requestId)) this.#engine.post({ type: 'abort', requestId });
  }

  /** Ends one sample of a request whose text is complete, the others go on; nothing when it is done. */
  finishSample(requestId: number, index: number): void {
    if (this.#end(requestId, index)) this.#engine.post({ type: 'finish', requestId, index });
  }

  /** Ends the engine with a cause from outside, which everyone who waits gets. */
  fail(cause: NdsError): void {
    this.#engine.fail(cause);
  }

  /** Rejects what is under way with `ERR_CLOSED`; settles when no plan is under way any more. */
  close(): Promise<void> {
    return this.#engine.close();
  }

  #onEvent(event: EngineEvent): void {
    if (event.type === 'stats') this.#stats = event.stats;
    else if (event.type === 'failed') this.#onFailure(fromErrorInfo(event.error));
    else {
      const request = this.#requests.get(event.requestId);
      if (event.type === 'refused') {
        this.#requests.delete(event.requestId);
        return request?.handler.onError(fromErrorInfo(event.error));
      }
      if (event.type === 'tokens' && event.finishReason !== null) this.#end(event.requestId, event.index);
      if (event.type === 'logits' && event.finished) this.#end(event.requestId, 0);
      request?.handler.onEvent(event);
    }
  }

  /** Whether more was to come of a sample. A request ends with its last sample. */
  #end(requestId: number, index: number): boolean {
    const samples = this.#requests.get(requestId)?.samples;
    const wasOpen = samples?.delete(index) ?? false;
    if (samples?.size === 0) this.#requests.delete(requestId);
    return wasOpen;
  }

  #onFailure(cause: NdsError): void {
    this.#failure = cause;
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { handler } of requests) handler.onError(cause);
  }
}
