/** How rank 0 learns that another rank has ended: from the launcher, which sees every process end. */
import { isNdsErrorCode, NdsError } from '../../protocol/errors.ts';
import { type FailureRecord, hasRankEnded, readFailure } from '../../protocol/failure.ts';
import { onSignals } from './stop-signals.ts';

const pollMs = 500;

/** The part of an epoch that is watched: its run folder and the number of its ranks. */
export interface WatchedGang {
  readonly runDir: string;
  readonly worldSize: number;
}

/**
 * Calls `onLost` with the reason when another rank of an epoch has ended, until the returned function is called.
 * A failure is signalled by the launcher; a rank that ended without failing is found by polling.
 */
export function watchPeers({ runDir, worldSize }: WatchedGang, onLost: (reason: NdsError) => void): () => void {
  const stopListening = onSignals(() => {
    const failure = readFailure(runDir);
    if (failure === null) return 'default';
    onLost(peerLost(failure));
    return 'handled';
  });
  // Reported one poll later, since the launcher needs a moment to find the first of several failures.
  const seen = new Set<number>();
  const timer = setInterval(() => {
    for (let rank = 1; rank < worldSize; rank++) {
      if (!hasRankEnded(runDir, rank) || readFailure(runDir) !== null) continue;
      const message = `Expected rank ${rank} to go on but it has ended: every rank must come to LLM.load`;
      if (seen.has(rank)) onLost(new NdsError('ERR_PEER_LOST', message));
      seen.add(rank);
    }
  }, pollMs).unref();
  return () => {
    clearInterval(timer);
    stopListening();
  };
}

/** The error of requests in flight when a rank failed. */
export function peerLost(failure: FailureRecord): NdsError {
  const ended = failure.signal === null ? `it exited with code ${failure.exitCode}` : `it was ended by ${failure.signal}`;
  const because = failure.message === null ? '' : `: ${failure.message}`;
  const cause = isNdsErrorCode(failure.code) ? new NdsError(failure.code, failure.message ?? `Rank ${failure.rank} failed`) : undefined;
  return new NdsError('ERR_PEER_LOST', `Expected rank ${failure.rank} to go on but ${ended}${because}`, cause && { cause });
}
