/** Plans of the sweep that measures the cost of drafts: valid within all limits of the model and its draft model. */
import t from 'tap';
import { ShapePlans, SWEEP_REPEATS, sweepShapes } from '../../../rank/speculative/sweep.ts';
import { FakeExecutor } from '../../helpers/fake-executor.ts';
import { randomIntegers } from '../../helpers/random.ts';
import { smallLimits } from '../../helpers/requests.ts';

const below = randomIntegers(3);
const oneOf = <T>(...values: T[]) => values[below(values.length)] as T;

t.test('every plan of a sweep runs, within the limits of both models', async (t) => {
  let numPlans = 0;
  for (let i = 0; i < 60; i++) {
    const maxNumSeqs = oneOf(1, 2, 5, 16);
    const maxNumBatchedTokens = Math.max(maxNumSeqs, oneOf(1, 2, 3, 32, 33, 64, 256, 257));
    const maxModelLen = oneOf(2, 20, 64, 300, 1000);
    const numSpeculativeTokens = oneOf(1, 4, 5);
    const draftLimits = oneOf(null, { maxModelLen: Math.min(maxModelLen, oneOf(1, 2, 33, 48, 270, 1000)), maxNumBatchedTokens });
    const options = {
      ...smallLimits,
      ...{ maxNumSeqs, maxNumBatchedTokens, maxModelLen, draftLimits },
      blockSize: 32,
      numBlocks: oneOf(1, 3, 100),
      maxNumLogitRows: oneOf(maxNumSeqs, 128),
    };
    const executor = new FakeExecutor(options, 31);
    let step = 0;
    for (const shape of sweepShapes({ maxNumSeqs, maxNumBatchedTokens, numSpeculativeTokens })) {
      const plans = ShapePlans.open(shape, options, SWEEP_REPEATS);
      if (plans === null) continue;
      await executor.execute(plans.admit(step++));
      for (let k = 0; k < SWEEP_REPEATS; k++) {
        const plan = plans.next(step++);
        await executor.execute(plan);
        if (plan.draft === null) continue;
        const { maxModelLen: most = 0 } = draftLimits ?? {};
        // The most tokens it may have to process, and all drafts but the last.
        const longest = Math.max(...plan.draft.lens) + shape.numDrafts - 1;
        if (longest > most) t.fail(`${longest} tokens for a draft of ${most}: ${JSON.stringify({ shape, options })}`);
      }
    }
    numPlans += step;
  }
  t.ok(numPlans > 500, `${numPlans} plans`);
});
