/** The first code in a rank: ties its life to the launcher's, records the error that ends it, answers SIGUSR2. */
import { isMainThread } from 'node:worker_threads';
import { describeError, type RankErrorRecord, writeRankError } from '../../protocol/failure.ts';
import { claimRank, type RankEnv, readRankEnv } from '../../protocol/rank-env.ts';
import { native } from '../native.ts';

/** Node's exit code for a script whose event loop is empty before its end. */
const unsettledAwaitCode = 13;

// Threads and forked children of a rank get its `--import` too, and are no ranks.
const env = isMainThread ? readRankEnv() : null;
if (env !== null) {
  claimRank();
  // ndsrun has built the addon before it started us.
  native().guardProcess(env.launcherPid, env.watchFd);
  recordErrors(env);
  process.on('SIGUSR2', () => printState(env));
}

/**
 * Leaves Node's handling of uncaught errors as it is, handlers of the user's included: the error is only written down, and the exit code
 * becomes that of an `NdsError`.
 */
function recordErrors({ rank, runDir }: RankEnv): void {
  let fatal: RankErrorRecord | null = null;
  let hasDrained = false;
  process.on('uncaughtExceptionMonitor', (error: unknown) => {
    // The user's own handler decides whether this error ends the process.
    if (process.listenerCount('uncaughtException') > 0) return;
    fatal = describeError(rank, error);
    writeRankError(runDir, fatal);
  });
  process.on('beforeExit', () => {
    hasDrained = true;
  });
  process.on('exit', (code) => {
    if (fatal !== null) process.exitCode = fatal.exitCode;
    else if (hasDrained && (code === unsettledAwaitCode || process.exitCode === unsettledAwaitCode)) {
      const error = new Error('A top-level await never settled: nothing is left to run, but the script is not at its end');
      error.name = 'UnsettledTopLevelAwait';
      writeRankError(runDir, { ...describeError(rank, error), stack: null, exitCode: unsettledAwaitCode });
    }
  });
}

function printState({ rank }: RankEnv): void {
  const { rss, heapUsed } = process.memoryUsage();
  const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
  const handles = process.getActiveResourcesInfo().join(' ') || 'none';
  process.stderr.write(
    `rank ${rank}: up ${Math.round(process.uptime())} s, ${mebibytes(rss)} resident, ${mebibytes(heapUsed)} heap, active: ${handles}\n`,
  );
}
