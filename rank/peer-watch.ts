/** How rank 0 hears that another rank has ended: the launcher records the failure, then sends SIGTERM. */
import { isNdsErrorCode, NdsError } from '../protocol/errors.ts';
import { type FailureRecord, readFailure } from '../protocol/failure.ts';

/**
 * Calls `onEnd` once, on the first SIGTERM, with the reason why nothing can be computed any more.
 * A SIGTERM without a failure is somebody's wish that the process ends: unless the user's code handles it, it does.
 */
export function watchPeers(runDir: string, onEnd: (reason: NdsError) => void): void {
  process.once('SIGTERM', () => {
    const failure = readFailure(runDir);
    if (failure !== null) {
      onEnd(peerLost(failure));
      return;
    }
    onEnd(new NdsError('ERR_CLOSED', 'Expected to go on but the process received SIGTERM'));
    // Without a listener the signal does again what it does by default; rejections are seen first.
    if (process.listenerCount('SIGTERM') === 0) setImmediate(() => process.kill(process.pid, 'SIGTERM'));
  });
}

/** The error of everything that was in flight when a rank failed. */
export function peerLost(failure: FailureRecord): NdsError {
  const ended = failure.signal === null ? `it exited with code ${failure.exitCode}` : `it was ended by ${failure.signal}`;
  const because = failure.message === null ? '' : `: ${failure.message}`;
  const cause = isNdsErrorCode(failure.code) ? new NdsError(failure.code, failure.message ?? `Rank ${failure.rank} failed`) : undefined;
  return new NdsError('ERR_PEER_LOST', `Expected rank ${failure.rank} to go on but ${ended}${because}`, { cause });
}
