/** Random schedules through the real engine, on one to four ranks: every request gives the tokens and log-probabilities, to the bit, that it gives alone. */
import { test } from 'tap';
import type { Finding, SchedulesJob, SchedulesResult } from '../fixtures/scripts/schedules.ts';
import { runScript } from '../helpers/gang.ts';
import { goldenPath } from '../helpers/goldens.ts';
import { isBeginning } from '../helpers/request-pool.ts';

const schedulesPerLoad = 10;

/** Nine heads divide by no number of ranks but three; a window hides what is old. */
const models = [
  { name: 'smollm-nine-heads-bf16', dtype: 'bfloat16', numLoads: [60, 40, 20, 20] },
  { name: 'mistral-sliding-bf16', dtype: 'float32', numLoads: [40, 20, 10, 10] },
] as const;

for (const { name, dtype, numLoads } of models) {
  const common = { model: goldenPath(name), dtype, poolSeed: 7, poolSize: 150, schedulesPerLoad };
  let alone: Finding[] | undefined;
  for (const [i, count] of numLoads.entries()) {
    const worldSize = i + 1;
    test(`${name}, ${count * schedulesPerLoad} schedules on ${worldSize} ranks`, async (t) => {
      alone ??= (await runScript<SchedulesResult>(1, 'schedules.ts', { ...common, seeds: null } satisfies SchedulesJob)).schedules.flat();
      const seeds = Array.from({ length: count }, (_, k) => worldSize * 1000 + k);
      const job: SchedulesJob = { ...common, seeds };
      const { schedules, ...totals } = await runScript<SchedulesResult>(worldSize, 'schedules.ts', job);
      let numAborted = 0;
      const wrong = schedules.flat().filter(({ request, outcome, aborted }) => {
        const whole = (alone as Finding[])[request]?.outcome as Finding['outcome'];
        if (aborted) numAborted++;
        return aborted ? !isBeginning(outcome, whole) : JSON.stringify(outcome) !== JSON.stringify(whole);
      });
      t.same(wrong, []);
      t.equal(schedules.length, count * schedulesPerLoad);
      t.equal(totals.numLeakedBlocks, 0);
      t.ok(totals.numPreemptions > 10 && totals.numPrefixHitTokens > 100 && numAborted > 10, JSON.stringify({ ...totals, numAborted }));
    });
  }
}
