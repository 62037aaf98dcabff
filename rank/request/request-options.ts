/** What a call may say besides how to sample: when to drop it, and how urgent it is. */
import { setMaxListeners } from 'node:events';
import { describe } from '../../protocol/describe.ts';
import { NdsError } from '../../protocol/errors.ts';

export interface RequestOptions {
  /** Aborting it drops what is under way, whose blocks serve others at once, and rejects with `ERR_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
  /** Lower numbers are served first, where `schedulingPolicy` is `priority`. Default 0. */
  readonly priority?: number | undefined;
}

/** @throws NdsError `ERR_REQUEST` naming the option that is unknown or of a wrong type; `ERR_ABORTED` for a signal that has fired. */
export function checkRequestOptions(options: unknown = {}): RequestOptions {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new NdsError('ERR_REQUEST', `Expected an object of request options but received ${describe(options)}`);
  }
  const { signal, priority, ...others } = options as Record<string, unknown>;
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) throw new NdsError('ERR_REQUEST', `Expected request options signal or priority but received '${unknown}'`);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new NdsError('ERR_REQUEST', `Expected an AbortSignal for signal but received ${describe(signal)}`);
  if (priority !== undefined && !Number.isSafeInteger(priority))
    throw new NdsError('ERR_REQUEST', `Expected an integer for priority but received ${describe(priority)}`);
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
