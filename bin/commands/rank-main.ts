/** How a rank of one of our own commands ends: its errors are for people at a command line. */
import { NdsError } from '../../protocol/errors.ts';
import { describeError, writeRankError } from '../../protocol/failure.ts';
import { readRankEnv } from '../../protocol/rank-env.ts';

/** Runs a command's part in this rank. The launcher's report says what an `NdsError` is; no one there wants our stack. */
export async function rankMain(body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    const env = readRankEnv();
    if (env !== null) writeRankError(env.runDir, { ...describeError(env.rank, error), stack: null });
    process.exitCode = error.exitCode;
  }
}
