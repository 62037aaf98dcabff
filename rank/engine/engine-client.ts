/** The `LLM`'s side of its engine: numbers requests and routes events to their callers. */
import type { NdsError } from '../../protocol/errors.ts';
import type { EngineRequest, GenerateRequest, HiddenRequest, LogitsRequest } from '../scheduler/request.ts';
import type { Engine } from './engine.ts';
import { type EngineEvent, fromErrorInfo } from './messages.ts';
import { OpenRequest } from './open-request.ts';
import type { EngineStats } from './stats.ts';

/** A request before its id is assigned. */
export type NewRequest = Omit<GenerateRequest, 'requestId'> | Omit<LogitsRequest, 'requestId'> | Omit<HiddenRequest, 'requestId'>;

/** Output of a request. */
export type RequestEvent = Extract<EngineEvent, { type: 'tokens' | 'promptLogprobs' | 'rows' }>;

/** The caller of a request. An error, or the last event of the last sample, is final. */
export interface RequestHandler {
  onEvent(event: RequestEvent): void;
  onError(error: NdsError): void;
}

/** Assigns request ids; dispatches the engine's events to the requests' handlers; holds what a lost engine needs to go on. */
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

  /** @throws NdsError the cause, once the engine is closed or has failed. */
  checkOpen(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Submits a request to the engine; returns its id. */
  submit(request: NewRequest, handler: RequestHandler): number {
    const requestId = this.#nextRequestId++;
    const numbered: EngineRequest = { ...request, requestId };
    this.#requests.set(requestId, new OpenRequest(numbered, handler));
    this.#engine.post(numbered);
    return requestId;
  }

  /** Aborts a request; no-op when it is done. */
  abort(requestId: number): void {
    if (this.#requests.delete(requestId)) this.#engine.post({ type: 'abort', requestId });
  }

  /** Finishes one sample, whose text is complete; no-op when it is done. */
  finishSample(requestId: number, index: number): void {
    if (this.#end(requestId, index)) this.#engine.post({ type: 'finish', requestId, index });
  }

  /** Rejects open requests with `ERR_CLOSED`; settles once no plan is in flight. */
  close(): Promise<void> {
    return this.#engine.close();
  }

  #onEvent(event: EngineEvent): void {
    if (event.type === 'stats') this.#stats = event.stats;
    else if (event.type === 'lost') this.#resubmit(event.numLosses);
    else if (event.type === 'failed') this.#onFailure(fromErrorInfo(event.error));
    else if (event.type !== 'resumed') this.#dispatch(event);
  }

  #dispatch(event: RequestEvent | Extract<EngineEvent, { type: 'refused' }>): void {
    const request = this.#requests.get(event.requestId);
    if (request === undefined) return;
    if (event.type === 'refused') {
      this.#requests.delete(event.requestId);
      return request.handler.onError(fromErrorInfo(event.error));
    }
    if (event.type === 'tokens' && !request.isOpen(event.index)) return;
    request.note(event);
    if (request.isDone) this.#requests.delete(event.requestId);
    request.handler.onEvent(event);
  }

  /** Every unfinished request again, in the order of arrival: the engine has lost them. */
  #resubmit(numLosses: number): void {
    this.#engine.post({ type: 'resubmit', numLosses });
    for (const request of this.#requests.values()) this.#engine.post(request.remainder);
  }

  /** Marks a sample done; returns whether it was open. A request ends with its last sample. */
  #end(requestId: number, index: number): boolean {
    const request = this.#requests.get(requestId);
    const wasOpen = request?.end(index) ?? false;
    if (request?.isDone) this.#requests.delete(requestId);
    return wasOpen;
  }

  #onFailure(cause: NdsError): void {
    this.#failure = cause;
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { handler } of requests) handler.onError(cause);
  }
}
