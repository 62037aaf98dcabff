/** What a call may say besides how to sample: when to drop it, and how urgent it is. */
import { setMaxListeners } from 'node:events';
import { type Check, checkFields, isObject, where } from '../../protocol/checks.ts';
import { NdsError, unexpected } from '../../protocol/errors.ts';

export interface RequestOptions {
  /** Aborting it drops what is in flight, whose blocks serve others at once, and rejects with `ERR_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
  /** Lower numbers are served first, where `schedulingPolicy` is `priority`. Default 0. */
  readonly priority?: number | undefined;
}

/** Of each option, what it must be. */
const checks: Readonly<Record<keyof Required<RequestOptions>, Check<unknown>>> = {
  signal: where('an AbortSignal', (value: unknown) => value instanceof AbortSignal),
  priority: where('an integer', Number.isSafeInteger),
};

/** @throws NdsError `ERR_REQUEST` naming the option that is unknown or of a wrong type; `ERR_ABORTED` for a signal that has fired. */
export function checkRequestOptions(options: unknown = {}): RequestOptions {
  if (!isObject(options)) throw unexpected('ERR_REQUEST', 'an object of request options', null, options);
  checkFields(options, checks, { plural: 'request options' }, 'ERR_REQUEST');
  const { signal } = options as RequestOptions;
  if (signal?.aborted) throw abortError(signal);
  return options;
}

/** Calls `onAbort` when the signal aborts; returns what stops that. One listener a call, however many requests it has. */
export function listenForAbort(signal: AbortSignal | undefined, onAbort: (error: NdsError) => void): () => void {
  if (signal === undefined) return () => {};
  const listener = () => onAbort(abortError(signal));
  // Many calls may share a signal, such as that of a server's end: no leak, though Node would warn of one.
  setMaxListeners(0, signal);
  signal.addEventListener('abort', listener);
  return () => signal.removeEventListener('abort', listener);
}

function abortError(signal: AbortSignal): NdsError {
  return new NdsError('ERR_ABORTED', 'Expected the request to finish but its signal aborted it', { cause: signal.reason });
}
