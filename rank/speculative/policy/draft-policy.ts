/** Decides how many tokens each step drafts, and learns from what came of it. */
import type { Acceptance } from './acceptance.ts';
import { LossBudget, ProbeBudget, VariationBudget } from './budget.ts';
import { allDrafts, chooseDrafts } from './choose-drafts.ts';
import { clipResidual } from './cost-curve.ts';
import {
  catchUpSeconds,
  type DraftCandidate,
  type DraftStep,
  expectedTokens,
  mostDraftsOf,
  nextSlotSeconds,
  passSeconds,
  plainSeconds,
  stepSeconds,
} from './draft-step.ts';
import type { StepCostEstimates } from './step-costs.ts';

/**
 * Variations of a best plan with drafts, in turns: what each sequence's drafts become. Plain steps, too, have to be measured as long as all others are compared with them.
 * Of a plain step of one sequence there is one, a draft; in a batch, probes are cheaper.
 */
const VARIATIONS: readonly ((drafts: number) => number)[] = [() => 0, (drafts) => drafts - 1, (drafts) => drafts + 1];
/** Weight of not having tried against what was found when a probe is chosen: one success outweighs it, so that the next probe is of the same sequence. */
const CURIOSITY = 0.25;
/** Share of a token's worth that a successful probe has earned: what it cost is an estimate. */
const REFUND = 0.5;

/** Drafts of a sequence at most where estimates would have none. */
const MOST_FORCED = 3;

/** A decoding sequence, with its estimate for the method that would draft for it in this step. */
export interface PolicyCandidate extends DraftCandidate {
  readonly acceptance: Acceptance;
}

export interface PolicyStep extends DraftStep {
  readonly candidates: readonly PolicyCandidate[];
  /** How many times what a plain step brings drafts must promise to be worth it; default 1. */
  readonly leastGain?: number;
  /** Whether all that are likely enough to stay are drafted where estimates would have none: estimates may be wrong. */
  readonly mustDraft?: boolean;
}

/** What was decided for a step. Keep it until the step's result is there, for `settle`. */
export interface DraftDecision {
  /** `[numCandidates]` drafts of each. */
  readonly numDrafts: readonly number[];
  readonly candidates: readonly PolicyCandidate[];
  /** The candidate that has one draft more than pays, to see whether it would; the seconds which that one costs, and has earned if it is accepted. */
  readonly probe: { readonly index: number; readonly seconds: number; readonly refundSeconds: number } | null;
  /** Estimates, 0 where nothing depends on them: what the step costs those who decode, a step without drafts, and the passes that will be measured. */
  readonly seconds: number;
  readonly plainSeconds: number;
  readonly passSeconds: number;
}

/** What came of a sequence's drafts; null where nobody will know, because the request is gone. */
export interface DraftOutcome {
  /** At most as many as decided. */
  readonly numDrafted: number;
  readonly numAccepted: number;
}

export class DraftPolicy {
  readonly #costs: StepCostEstimates;
  readonly #adaptive: boolean;
  readonly #probes = new ProbeBudget();
  readonly #losses = new LossBudget();
  readonly #variations = new VariationBudget();
  #numVariations = 0;

  /** `adaptive: false` = as many drafts as there may be, always. */
  constructor({ costs, adaptive }: { readonly costs: StepCostEstimates; readonly adaptive: boolean }) {
    this.#costs = costs;
    this.#adaptive = adaptive;
  }

  /** Decides for a step, the first of `numSteps` since the last decision. Other steps may be planned before this one is settled. */
  decide(step: PolicyStep, numSteps = 1): DraftDecision {
    const costs = this.#costs;
    const { candidates } = step;
    if (!this.#adaptive) return { numDrafts: allDrafts(step), candidates, probe: null, seconds: 0, plainSeconds: 0, passSeconds: 0 };
    const best = this.#losses.isOpen ? chooseDrafts(step, costs, step.leastGain) : candidates.map(() => 0);
    if (step.mustDraft === true && best.every((drafts) => drafts === 0)) return this.#decision(step, likelyDrafts(step), null);
    const seconds = stepSeconds(step, best, costs);
    this.#probes.accrue(seconds * numSteps);
    this.#variations.accrue(seconds * numSteps, numSteps);
    const varied = this.#losses.isOpen ? this.#vary(step, best, seconds) : null;
    if (varied !== null) return this.#decision(step, varied, null);
    const probe = this.#probe(step, best, seconds / expectedTokens(step, best));
    return this.#decision(
      step,
      best.map((drafts, r) => (r === probe?.index ? drafts + 1 : drafts)),
      probe,
    );
  }

  #decision(step: PolicyStep, numDrafts: number[], probe: DraftDecision['probe']): DraftDecision {
    const costs = this.#costs;
    return {
      numDrafts,
      candidates: step.candidates,
      probe,
      seconds: stepSeconds(step, numDrafts, costs),
      plainSeconds: plainSeconds(step, costs),
      passSeconds: passSeconds(step, numDrafts, costs),
    };
  }

  /** Learns from the result of a step. `outcomes`: of each candidate; `measuredSeconds`: of the draft's and the target's phases. */
  settle(decision: DraftDecision, outcomes: readonly (DraftOutcome | null)[], measuredSeconds: number): void {
    const { candidates, probe, plainSeconds, passSeconds, numDrafts } = decision;
    let tokens = 0;
    for (const [r, outcome] of outcomes.entries()) {
      tokens += 1 + (outcome?.numAccepted ?? 0);
      if (outcome !== null) candidates[r]?.acceptance.observe(outcome.numDrafted, outcome.numAccepted);
    }
    if (!this.#adaptive || candidates.length === 0) return;
    const isPlain = numDrafts.every((drafts) => drafts === 0);
    // By how much the step was dearer than estimated; of a plain one that is nobody's loss.
    const overrun = isPlain || !(measuredSeconds > 0) ? 0 : passSeconds * clipResidual(Math.log(measuredSeconds / passSeconds));
    this.#losses.settle(decision.seconds + overrun, tokens, plainSeconds, candidates.length);
    if (probe === null) return;
    const outcome = outcomes[probe.index];
    const accepted = outcome ? outcome.numAccepted >= (numDrafts[probe.index] as number) : false;
    this.#probes.settle(accepted, probe.refundSeconds);
  }

  /** Now and then another plan than the best, where that drafts or there is one sequence; else null. */
  #vary(step: PolicyStep, best: readonly number[], seconds: number): number[] | null {
    const isPlain = best.every((drafts) => drafts === 0);
    if (isPlain && best.length > 1) return null;
    const varied = best.map((drafts, r) => {
      const most = mostDraftsOf(step.candidates[r] as DraftCandidate);
      if (isPlain) return Math.min(1, most);
      const variation = VARIATIONS[this.#numVariations % VARIATIONS.length] as (drafts: number) => number;
      return drafts === 0 ? 0 : Math.min(variation(drafts), most);
    });
    if (!hasRoom(step, varied)) return null;
    const goodput = expectedTokens(step, best) / seconds;
    let loss = stepSeconds(step, varied, this.#costs) - expectedTokens(step, varied) / goodput;
    if (isPlain) for (const catchUp of catchUpSeconds(step.candidates, this.#costs)) loss += catchUp;
    if (!this.#variations.take(Math.max(0, loss))) return null;
    this.#numVariations++;
    return varied;
  }

  /** One draft more for the sequence where it promises or teaches most for its seconds, when they are saved up. Its catch-up is counted whole. */
  #probe(step: PolicyStep, numDrafts: readonly number[], tokenSeconds: number): DraftDecision['probe'] {
    const { candidates } = step;
    if (!hasRoom(step, numDrafts, 1)) return null;
    const slots = nextSlotSeconds(step, numDrafts, this.#costs);
    const catchUps = catchUpSeconds(candidates, this.#costs);
    let best: { index: number; seconds: number; catchUp: number; score: number } | null = null;
    for (const [index, candidate] of candidates.entries()) {
      const drafts = numDrafts[index] as number;
      if (drafts >= mostDraftsOf(candidate)) continue;
      const catchUp = drafts === 0 ? (catchUps[index] as number) : 0;
      const seconds = (slots[index] as number) + catchUp;
      const { acceptance } = candidate;
      const score = (acceptance.survival(drafts + 1) + CURIOSITY / (1 + acceptance.evidence(drafts + 1))) / (seconds + 1e-9);
      if (best === null || score > best.score) best = { index, seconds, catchUp, score };
    }
    if (best === null || !this.#probes.take(best.seconds, best.catchUp)) return null;
    return { index: best.index, seconds: best.seconds, refundSeconds: Math.min(best.seconds, REFUND * tokenSeconds) };
  }
}

/** `[numCandidates]` the first drafts of each, as many as are more likely to stay than not, where there is room for those of all. */
function likelyDrafts(step: PolicyStep): number[] {
  const numDrafts = step.candidates.map((candidate) => {
    let drafts = Math.min(MOST_FORCED, mostDraftsOf(candidate));
    while (drafts > 0 && candidate.acceptance.survival(drafts) < 0.5) drafts--;
    return drafts;
  });
  return hasRoom(step, numDrafts) ? numDrafts : numDrafts.map(() => 0);
}

function hasRoom({ mostDrafts = Number.POSITIVE_INFINITY }: DraftStep, numDrafts: readonly number[], more = 0): boolean {
  return numDrafts.reduce((sum, n) => sum + n, more) <= mostDrafts;
}
