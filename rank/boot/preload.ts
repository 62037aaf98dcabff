/** First code in a rank: ends it with its launcher, records a fatal error, prints its state on SIGUSR2. */
import { isMainThread } from 'node:worker_threads';
import { describeError, isForUser, type RankErrorRecord, writeRankError } from '../../protocol/failure.ts';
import { claimRank, type RankEnv, readRankEnv } from '../../protocol/rank-env.ts';
import { native } from '../native.ts';

/** Node's exit code for a top-level await that never settles. */
const unsettledAwaitCode = 13;

// Threads and forked children of a rank inherit its `--import`, but are no ranks.
const env = isMainThread ? readRankEnv() : null;
if (env !== null) {
  claimRank();
  // ndsrun has built the addon already.
  native().guardProcess(env.launcherPid, env.watchFd);
  recordErrors(env);
  process.on('SIGUSR2', () => printState(env));
  // Node's default opens its inspector. A user's handler is called all the same.
  process.on('SIGUSR1', () => {});
}

/**
 * Records the fatal error and sets an `NdsError`'s exit code. An `NdsError` that the user can act on is left to the
 * launcher to print: once, without Node's frames. Node's handling of other uncaught errors, user handlers included, is
 * unchanged.
 */
function recordErrors({ rank, runDir }: RankEnv): void {
  let fatal: RankErrorRecord | null = null;
  let hasDrained = false;
  process.on('uncaughtExceptionMonitor', (error: unknown) => {
    // The user's handler decides whether this error ends the process.
    if (process.listenerCount('uncaughtException') > 0 || process.hasUncaughtExceptionCaptureCallback()) return;
    fatal = describeError(rank, error);
    writeRankError(runDir, fatal);
    if (isForUser(fatal)) process.exit(fatal.exitCode);
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
