/** How rank 0 learns that another rank has ended: from the launcher, which sees every process end. */
import { isDeepStrictEqual } from 'node:util';
import { isNdsErrorCode, NdsError } from '../../protocol/errors.ts';
import { type FailureRecord, hasRankEnded, readFailure } from '../../protocol/failure.ts';
import { onSignals } from './stop-signals.ts';

const pollMs = 500;

/** The part of an epoch that is watched: its run folder and the number of its ranks. */
export interface WatchedGang {
  readonly runDir: string;
  readonly worldSize: number;
}

export interface PeerListener {
  /** The launcher ends the gang, for this reason. */
  onFailed(reason: NdsError): void;
  /** A rank has ended, and nothing says that it failed. */
  onEnded(reason: NdsError): void;
}

/**
 * Tells of the end of an epoch's other ranks until the returned function is called. A failure is signalled by the
 * launcher; a rank that ended without failing is found by polling.
 */
export function watchPeers({ runDir, worldSize }: WatchedGang, { onFailed, onEnded }: PeerListener): () => void {
  const stopListening = watchFailure([runDir], [], onFailed);
  // Reported one poll later, since the launcher needs a moment to find the first of several failures.
  const seen = new Set<number>();
  const timer = setInterval(() => {
    for (let rank = 1; rank < worldSize; rank++) {
      if (!hasRankEnded(runDir, rank) || readFailure(runDir) !== null) continue;
      const message = `Expected rank ${rank} to go on but it has ended: every rank must come to LLM.load`;
      if (seen.has(rank)) onEnded(new NdsError('ERR_PEER_LOST', message));
      seen.add(rank);
    }
  }, pollMs).unref();
  return () => {
    clearInterval(timer);
    stopListening();
  };
}

/**
 * Calls `onFailed` when the launcher signals a failure that is recorded in one of the folders, until the returned
 * function is called.
 * @param known - failures that did not end the gang
 */
export function watchFailure(
  runDirs: readonly string[],
  known: readonly FailureRecord[],
  onFailed: (reason: NdsError) => void,
): () => void {
  return onSignals(() => {
    const isNew = (failure: FailureRecord | null) => failure !== null && !known.some((other) => isDeepStrictEqual(failure, other));
    const failure = runDirs.map(readFailure).find(isNew) ?? null;
    if (failure === null) return 'default';
    onFailed(peerLost(failure));
    return 'handled';
  });
}

/** The error of requests in flight when a rank failed. */
export function peerLost(failure: FailureRecord): NdsError {
  // The launcher's watchdog: nothing has ended yet.
  if (failure.code === 'ERR_STEP_TIMEOUT' && failure.message !== null) return new NdsError(failure.code, failure.message);
  const ended = failure.signal === null ? `it exited with code ${failure.exitCode}` : `it was ended by ${failure.signal}`;
  const because = failure.message === null ? '' : `: ${failure.message}`;
  const cause = isNdsErrorCode(failure.code) ? new NdsError(failure.code, failure.message ?? `Rank ${failure.rank} failed`) : undefined;
  return new NdsError('ERR_PEER_LOST', `Expected rank ${failure.rank} to go on but ${ended}${because}`, cause && { cause });
}
