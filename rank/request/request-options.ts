/** Options of a call besides sampling: its abort signal and its priority. */
import { setMaxListeners } from 'node:events';
import { type Check, checkFields, isObject, where } from '../../protocol/checks.ts';
import { NdsError, unexpected } from '../../protocol/errors.ts';

export interface RequestOptions {
  /** Aborts the call, which rejects with `ERR_ABORTED`; its KV blocks serve other requests at once. */
  readonly signal?: AbortSignal | undefined;
  /** Scheduling priority, lower first, where `schedulingPolicy` is `priority`. Default 0. */
  readonly priority?: number | undefined;
}

/** What a call on several prompts has done so far. */
export interface GenerateProgress {
  /** Prompts whose outputs are complete. */
  readonly finished: number;
  readonly total: number;
  /** Tokens generated for all of them. */
  readonly numTokens: number;
}

/** Options of a call that returns whole outputs. */
export interface GenerateOptions extends RequestOptions {
  /**
   * Called as each prompt finishes, and some times a second while tokens come. It should return soon; if it throws, the
   * call rejects and its requests end.
   */
  readonly onProgress?: ((progress: GenerateProgress) => void) | undefined;
}

/** Check of each option. */
export const requestChecks: Readonly<Record<keyof Required<RequestOptions>, Check<unknown>>> = {
  signal: where('an AbortSignal', (value: unknown) => value instanceof AbortSignal),
  priority: where('an integer', Number.isSafeInteger),
};

const generateChecks: Readonly<Record<keyof Required<GenerateOptions>, Check<unknown>>> = {
  ...requestChecks,
  onProgress: where('a function', (value: unknown) => typeof value === 'function'),
};

/** @throws NdsError `ERR_REQUEST` naming the option that is unknown or of a wrong type; `ERR_ABORTED` for a signal that has fired. */
export function checkRequestOptions(options: unknown = {}): RequestOptions {
  return checkAgainst(options, requestChecks);
}

/** As `checkRequestOptions`, for a call that returns whole outputs. */
export function checkGenerateOptions(options: unknown = {}): GenerateOptions {
  return checkAgainst(options, generateChecks);
}

function checkAgainst<Options extends RequestOptions>(
  options: unknown,
  checks: Readonly<Record<keyof Required<Options>, Check<unknown>>>,
): Options {
  if (!isObject(options)) throw unexpected('ERR_REQUEST', 'an object of request options', null, options);
  checkFields(options, checks, { plural: 'request options', knowsForeign: true }, 'ERR_REQUEST');
  checkAborted((options as Options).signal);
  return options as Options;
}

/** @throws NdsError `ERR_ABORTED` for a signal that has fired. */
export function checkAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** The outcome of a promise. @throws NdsError `ERR_ABORTED` as soon as the signal fires. */
export async function raceAbort<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  let stopListening = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stopListening = listenForAbort(signal, reject);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    stopListening();
  }
}

/** Calls `onAbort` when the signal aborts; returns a function that stops listening. One listener serves a call. */
export function listenForAbort(signal: AbortSignal | undefined, onAbort: (error: NdsError) => void): () => void {
  if (signal === undefined) return () => {};
  const listener = () => onAbort(abortError(signal));
  // No limit: many calls may share a signal, e.g. a server's shutdown, and Node would warn of a leak.
  setMaxListeners(0, signal);
  signal.addEventListener('abort', listener);
  return () => signal.removeEventListener('abort', listener);
}

function abortError(signal: AbortSignal): NdsError {
  return new NdsError('ERR_ABORTED', 'Expected the request to finish but its signal aborted it', { cause: signal.reason });
}
