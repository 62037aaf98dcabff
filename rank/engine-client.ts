/** An `LLM`'s side of the conversation with its engine: who waits for which request. */
import type { NdsError } from '../protocol/errors.ts';
import type { Engine } from './engine.ts';
import { type EngineEvent, type EngineStats, fromErrorInfo, type GenerateRequest, type LogitsRequest } from './engine-messages.ts';

/** A request before it has a number. */
export type NewRequest = Omit<GenerateRequest, 'requestId'> | Omit<LogitsRequest, 'requestId'>;

/** What a request brings. */
export type RequestEvent = Extract<EngineEvent, { type: 'tokens' | 'logits' }>;

/** Who waits for it. Nothing follows an error, nor an event that is the last. */
export interface RequestHandler {
  onEvent(event: RequestEvent): void;
  onError(error: NdsError): void;
}

/** Numbers requests, and hands what the engine says to whoever waits for it. */
export class EngineClient {
  readonly #engine: Engine;
  readonly #handlers = new Map<number, RequestHandler>();
  #stats: EngineStats;
  #nextRequestId = 0;
  #failure: NdsError | null = null;

  constructor(createEngine: (listener: (event: EngineEvent) => void) => Engine) {
    this.#engine = createEngine((event) => this.#onEvent(event));
    this.#stats = this.#engine.stats;
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
    this.#handlers.set(requestId, handler);
    this.#engine.post({ ...request, requestId });
    return requestId;
  }

  /** Drops a request that nobody waits for any more; nothing when it is done. */
  abort(requestId: number): void {
    if (this.#handlers.delete(requestId)) this.#engine.post({ type: 'abort', requestId });
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
      const handler = this.#handlers.get(event.requestId);
      if (isLast(event)) this.#handlers.delete(event.requestId);
      if (event.type === 'refused') handler?.onError(fromErrorInfo(event.error));
      else handler?.onEvent(event);
    }
  }

  #onFailure(cause: NdsError): void {
    this.#failure = cause;
    const handlers = [...this.#handlers.values()];
    this.#handlers.clear();
    for (const { onError } of handlers) onError(cause);
  }
}

function isLast(event: Extract<EngineEvent, { requestId: number }>): boolean {
  if (event.type === 'logits') return event.finished;
  return event.type === 'refused' || event.finishReason !== null;
}
