/** The main function of the ranks of our own commands, whose errors are for people at a command line. */
import { NdsError } from '../../protocol/errors.ts';
import { describeError, writeRankError } from '../../protocol/failure.ts';
import { readRankEnv } from '../../protocol/rank-env.ts';

/** Runs a command's part in this rank. The launcher's report shows an `NdsError`; its stack would not help there. */
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
