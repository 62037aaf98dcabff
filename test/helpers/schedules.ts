/**
 * Random schedules through the real engine, with and without drafts: a request yields the same tokens and
 * log-probabilities, to the bit, as alone.
 */
import { test } from 'tap';
import type { Finding, SchedulesJob, SchedulesResult } from '../fixtures/scripts/schedules.ts';
import { runScript } from './gang.ts';
import { goldenPath } from './goldens.ts';
import { isBeginning } from './request-pool.ts';
import { isFull, part } from './scale.ts';

const schedulesPerLoad = 10;
const loadsOfPart = 8;

/**
 * Declares the tests of one golden model, on one rank and more.
 * @param numLoads - number of loads with other options, on 1, 2, … ranks; ten schedules each
 * @param options - device and environment; min `leastDrafts` accepted and min `leastDrafts` rejected in a full run;
 * `ranksOfPart`, the numbers of ranks on which a partial run does about eight loads
 */
export function testSchedules(
  name: string,
  dtype: 'float32' | 'bfloat16',
  numLoads: readonly number[],
  {
    device,
    env,
    poolSize = 150,
    leastDrafts = 100,
    ranksOfPart = [],
  }: {
    device?: SchedulesJob['device'];
    env?: Record<string, string>;
    poolSize?: number;
    leastDrafts?: number;
    ranksOfPart?: readonly number[];
  } = {},
): void {
  // A random model accepts drafts of another one where noise decides, and its own always.
  const draftModels = [goldenPath(name), goldenPath('qwen2-bf16')];
  const common = { model: goldenPath(name), draftModels, dtype, ...(device && { device }), poolSeed: 7, poolSize, schedulesPerLoad };
  let alone: Finding[] | undefined;
  for (const [i, count] of numLoads.entries()) {
    const worldSize = i + 1;
    if (!isFull && !ranksOfPart.includes(worldSize)) continue;
    const seeds = part(
      Array.from({ length: count }, (_, k) => worldSize * 1000 + k),
      Math.round(count / loadsOfPart),
    );
    test(`${name}, ${seeds.length * schedulesPerLoad} schedules on ${worldSize} ranks`, async (t) => {
      alone ??= (
        await runScript<SchedulesResult>(1, 'schedules.ts', { ...common, seeds: null } satisfies SchedulesJob, env)
      ).schedules.flat();
      const job: SchedulesJob = { ...common, seeds };
      const { schedules, ...totals } = await runScript<SchedulesResult>(worldSize, 'schedules.ts', job, env);
      let numAborted = 0;
      const wrong = schedules.flat().filter(({ request, outcome, aborted }) => {
        const whole = (alone as Finding[])[request]?.outcome as Finding['outcome'];
        if (aborted) numAborted++;
        return aborted ? !isBeginning(outcome, whole) : JSON.stringify(outcome) !== JSON.stringify(whole);
      });
      t.same(wrong, []);
      t.equal(schedules.length, seeds.length * schedulesPerLoad);
      t.equal(totals.numLeakedBlocks, 0);
      t.ok(totals.numPreemptions > 10 && totals.numPrefixHitTokens > 100 && numAborted > 10, JSON.stringify({ ...totals, numAborted }));
      // A partial run drafts in proportion.
      const least = (leastDrafts * seeds.length) / count;
      const { numAcceptedDrafts, numRejectedDrafts } = totals;
      t.ok(numAcceptedDrafts > least && numRejectedDrafts > least, `${numAcceptedDrafts} accepted, ${numRejectedDrafts} rejected`);
    });
  }
}
