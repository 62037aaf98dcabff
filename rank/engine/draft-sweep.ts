/** Measures the cost of drafts on synthetic sequences, before the first request. */
import type { StepPlan } from '../../protocol/step-plan.ts';
import type { StepResult } from '../../protocol/step-result.ts';
import { monotonicSeconds } from '../observe/trace.ts';
import type { Speculator } from '../speculative/speculator.ts';
import { ShapePlans, SWEEP_REPEATS, type SweepLimits, sweepShapes } from '../speculative/sweep.ts';

/** Limits of the engine, and its max drafts per step. */
export interface SweepOptions extends SweepLimits {
  readonly maxNumSeqs: number;
  readonly numSpeculativeTokens: number;
}

/**
 * Runs the sweep until `end`, in seconds.
 * @param execute - runs a plan for the step that it is given
 * @throws NdsError whatever a step throws
 */
export async function sweepDrafts(
  speculator: Speculator,
  options: SweepOptions,
  end: number,
  execute: (planOf: (step: number) => StepPlan) => Promise<StepResult>,
): Promise<void> {
  for (const shape of sweepShapes(options)) {
    const plans = ShapePlans.open(shape, options, SWEEP_REPEATS);
    if (plans === null) continue;
    if (monotonicSeconds() >= end) return;
    await execute((step) => plans.admit(step));
    for (let i = 0; i < SWEEP_REPEATS && monotonicSeconds() < end; i++) {
      const { nextTarget: target, nextDraftPasses: draftPasses } = plans;
      const { executeSeconds, draftSeconds } = await execute((step) => plans.next(step));
      speculator.learn({ target, targetSeconds: executeSeconds - draftSeconds, draftPasses, draftSeconds });
    }
  }
}
