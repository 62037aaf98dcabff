/** A rank of `ndsrun replay`: `replay-rank REQUEST`. */
import { NdsError } from '../../protocol/errors.ts';
import { type RankEnv, readRankEnv } from '../../protocol/rank-env.ts';
import { follow } from '../../rank/gang/follower.ts';
import { readPlanLog } from '../../rank/observe/plan-log.ts';
import { openBar } from '../progress-bar.ts';
import { rankMain } from './rank-main.ts';
import type { ReplayRequest } from './replay.ts';
import { ReplaySession, warn } from './replay-session.ts';

await rankMain(async () => {
  const env = readRankEnv();
  if (env !== null && env.rank > 0) return follow(env);
  await replay(JSON.parse(process.argv[2] ?? '') as ReplayRequest, env);
});

async function replay(request: ReplayRequest, env: RankEnv | null): Promise<void> {
  let session: ReplaySession | null = null;
  let [numSteps, numUnknown] = [0, 0];
  const bar = openBar('replaying', 'items', request.quiet);
  const total = request.quiet ? 0 : countSteps(request.file);
  try {
    for (const record of readPlanLog(request.file)) {
      if (record.type === 'load') {
        numUnknown += (await session?.close()) ?? 0;
        session = await ReplaySession.open(record, request, env);
      } else if (record.type === 'torn') {
        warn(`${request.file} ends inside a record, at byte ${record.offset}`);
      } else {
        if (session === null) throw new NdsError('ERR_PLAN_LOG', `Expected a load before the first step of ${request.file}`);
        if (record.type === 'plan') session.run(record);
        else {
          await session.compare(record);
          bar.update(++numSteps, total);
        }
      }
    }
    if (session === null) throw new NdsError('ERR_PLAN_LOG', `Expected a load in ${request.file} but received an empty log`);
    numUnknown += await session.close();
    bar.end();
  } catch (error) {
    bar.erase();
    await session?.close().catch(() => {});
    throw error;
  }
  if (numUnknown > 0) warn(`${numUnknown} more ran to their end, but the log does not say what came out of them`);
  process.stdout.write(`${numSteps} steps identical\n`);
}

/** Steps of a log that have a result, up to its first error, which the replay itself reports. */
function countSteps(file: string): number {
  let numSteps = 0;
  try {
    for (const { type } of readPlanLog(file)) if (type === 'result') numSteps++;
  } catch {
    return numSteps;
  }
  return numSteps;
}
