/** Costs of a step's phases, learned from measured steps. */
import { LEAST_HOST_SECONDS } from './constants.ts';
import { MeasuredSeconds } from './measured-seconds.ts';
import { PassCosts, type PassLoad } from './pass-costs.ts';

/** A step as it was run. */
export interface MeasuredStep {
  /** The target's pass: newest tokens, drafts and tokens of prompts. 0 rows = it did not run. */
  readonly target: PassLoad;
  readonly targetSeconds: number;
  /** `[numPasses]` the draft model's passes: all catch-up tokens in the first, then one for each sequence that still drafts. */
  readonly draftPasses: readonly PassLoad[];
  readonly draftSeconds: number;
  /** Seconds between the previous step and this one; null where they are no measurement. */
  readonly hostSeconds?: number | null;
}

/** Estimates in seconds of one model's pass. */
export type PassEstimates = Pick<PassCosts, 'rowSeconds' | 'seconds' | 'contextSeconds' | 'draftContextSeconds'>;

/** Estimates in seconds. */
export interface StepCostEstimates {
  readonly target: PassEstimates;
  readonly draft: PassEstimates;
  /** Host seconds outside both models' passes, of steps with or without drafts. */
  hostSeconds(hasDrafts: boolean): number;
}

export class StepCosts implements StepCostEstimates {
  readonly target = new PassCosts();
  readonly draft = new PassCosts();
  /** Host seconds of steps without and with drafts; null before the first measurement. */
  readonly #host: [MeasuredSeconds | null, MeasuredSeconds | null] = [null, null];
  #numSteps = 0;

  hostSeconds(hasDrafts: boolean): number {
    const [plain, drafting] = this.#host;
    return (hasDrafts ? (drafting ?? plain) : (plain ?? drafting))?.seconds ?? 0;
  }

  observe({ target, targetSeconds, draftPasses, draftSeconds, hostSeconds = null }: MeasuredStep): void {
    this.#numSteps++;
    for (const costs of [this.target, this.draft]) costs.tick();
    if (target.rows > 0 && targetSeconds > 0) learnPasses(this.target, [target], targetSeconds);
    const passes = draftPasses.filter(({ rows }) => rows > 0);
    if (passes.length > 0 && draftSeconds > 0) learnPasses(this.draft, passes, draftSeconds);
    if (hostSeconds === null) return;
    const index = passes.length > 0 || target.draftContextTokens > 0 ? 1 : 0;
    const seconds = Math.max(LEAST_HOST_SECONDS, hostSeconds);
    this.#host[index] ??= new MeasuredSeconds(seconds, this.#numSteps);
    const host = this.#host[index];
    host.learn(Math.log(seconds / host.seconds), this.#numSteps);
  }
}

/** Only the sum is measured: each pass gets its residual, weighted by the share of passes of equal rows. */
function learnPasses(costs: PassCosts, passes: readonly PassLoad[], seconds: number): void {
  const estimates = passes.map((pass) => costs.seconds(pass));
  const total = estimates.reduce((sum, estimate) => sum + estimate, 0);
  const residual = Math.log(seconds / total);
  const byRows = new Map<number, { readonly pass: PassLoad; readonly estimate: number; weight: number }>();
  passes.forEach((pass, i) => {
    const estimate = estimates[i] as number;
    const same = byRows.get(pass.rows);
    if (same === undefined) byRows.set(pass.rows, { pass, estimate, weight: estimate / total });
    else same.weight += estimate / total;
  });
  // Before the first measurement estimates are rows, not seconds: slopes cannot learn from them.
  const isFirst = !costs.isMeasured;
  for (const { pass, estimate, weight } of byRows.values()) {
    costs.learn(isFirst ? { ...pass, contextTokens: 0, draftContextTokens: 0 } : pass, estimate, residual, weight);
  }
}
