/** Decides the number of drafts of each step, and learns from their outcome. */
import type { Acceptance } from './acceptance.ts';
import { allDrafts, type Bonus, chooseDrafts } from './choose-drafts.ts';
import { EXPLORATION, LEAST_GAIN, LEAST_LOSS_SECONDS, LOSS_SHARE, LOSS_STEPS, REFRESH } from './constants.ts';
import {
  catchUpSeconds,
  type DraftCandidate,
  type DraftStep,
  mostDraftsOf,
  type PlanSeconds,
  planSeconds,
  usualRows,
} from './draft-step.ts';
import { clipResidual } from './measured-seconds.ts';
import type { StepCostEstimates } from './step-costs.ts';

/** Decision for a step, to be kept for `settle`. */
export interface DraftDecision {
  /** `[numCandidates]` drafts of each. */
  readonly numDrafts: readonly number[];
  readonly candidates: readonly DraftCandidate[];
  /** Null where no decision depends on step costs. */
  readonly seconds: PlanSeconds | null;
  /** Whether it holds for one step only: it explores, or decodes plainly to measure that. */
  readonly isTrial: boolean;
}

/** Outcome of a sequence's drafts; null where the request is gone. */
export interface DraftOutcome {
  /** Max as decided. */
  readonly numDrafted: number;
  readonly numAccepted: number;
}

export class DraftPolicy {
  readonly #costs: StepCostEstimates;
  readonly #adaptive: boolean;
  /** Drafts of each sequence in the last plan without exploration, and steps since the last exploration. */
  #exploited = new Map<Acceptance, number>();
  #sinceExplored = 0;
  #sincePlain = 0;
  /** Seconds that speculation may still lose against plain decoding; null before the first step. */
  #credit: number | null = null;

  /** `adaptive: false` = always the max drafts. */
  constructor({ costs, adaptive }: { readonly costs: StepCostEstimates; readonly adaptive: boolean }) {
    this.#costs = costs;
    this.#adaptive = adaptive;
  }

  /** Whether the loss budget is spent: plain decoding until it has refilled. */
  get isOverdrawn(): boolean {
    return (this.#credit ?? 0) < 0;
  }

  /** Decides for a step, `numSteps` after the last decision. Other steps may be planned before this one is settled. */
  decide(step: DraftStep, numSteps = 1): DraftDecision {
    const { candidates } = step;
    if (!this.#adaptive) return { numDrafts: allDrafts(step), candidates, seconds: null, isTrial: false };
    this.#sinceExplored += numSteps;
    this.#sincePlain += numSteps;
    const isRefresh = this.#sincePlain > REFRESH;
    const mayDraft = !this.isOverdrawn && !isRefresh;
    const numDrafts = mayDraft ? this.#choose(step) : candidates.map(() => 0);
    if (numDrafts.every((drafts) => drafts === 0)) this.#sincePlain = 0;
    const isTrial = isRefresh || (mayDraft && this.#sinceExplored === 0);
    return { numDrafts, candidates, seconds: planSeconds(step, numDrafts, this.#costs), isTrial };
  }

  /** Learns from the result of a step. `outcomes`: of each candidate; `measuredSeconds`: of the draft's and the target's phases. */
  settle({ numDrafts, candidates, seconds }: DraftDecision, outcomes: readonly (DraftOutcome | null)[], measuredSeconds: number): void {
    let numTokens = 0;
    for (const [r, outcome] of outcomes.entries()) {
      numTokens += 1 + (outcome?.numAccepted ?? 0);
      if (outcome !== null) candidates[r]?.acceptance.observe(outcome.numDrafted, outcome.numAccepted);
    }
    if (seconds === null || candidates.length === 0) return;
    const { plain, plan, passes } = seconds;
    const most = Math.max(LEAST_LOSS_SECONDS, LOSS_STEPS * plain) / Math.sqrt(candidates.length);
    let credit = (this.#credit ?? most) + LOSS_SHARE * plain;
    // A plain step loses nothing, however long it took.
    if (numDrafts.some((drafts) => drafts > 0)) {
      const overrun = measuredSeconds > 0 ? Math.exp(clipResidual(Math.log(measuredSeconds / passes))) : 1;
      const host = this.#costs.hostSeconds(true);
      credit += (plain * numTokens) / candidates.length - host - (plan - host) * overrun;
    }
    this.#credit = Math.min(most, credit);
  }

  #choose(step: DraftStep): number[] {
    const { candidates } = step;
    const bonus = this.#bonus(step);
    const numDrafts = this.#affordable(candidates, chooseDrafts(step, this.#costs, { leastGain: LEAST_GAIN, bonus }));
    const isExplored = this.#sinceExplored > 1 && bonus !== null && (numDrafts[bonus.r] as number) >= bonus.i;
    if (isExplored) this.#sinceExplored = 0;
    else this.#exploited = new Map(candidates.map(({ acceptance }, r) => [acceptance, numDrafts[r] as number]));
    return numDrafts;
  }

  /** Without the catch-ups that overdraw the loss budget: one overdrawn by them stays so before they have paid. */
  #affordable(candidates: readonly DraftCandidate[], numDrafts: readonly number[]): number[] {
    let left = this.#credit ?? Number.POSITIVE_INFINITY;
    const catchUps = catchUpSeconds(candidates, this.#costs);
    return numDrafts.map((drafts, r) => {
      if (drafts === 0 || (catchUps[r] as number) > left) return 0;
      left -= catchUps[r] as number;
      return drafts;
    });
  }

  /**
   * The exploration bonus goes to one draft more than the last plan had, for the sequence where that is likeliest to be accepted for its seconds.
   * It grows with the steps since the last trial, so that trials which fail cost no more than its share of all tokens. A catch-up counts whole.
   */
  #bonus(step: DraftStep): Bonus | null {
    const { candidates, numOtherRows } = step;
    const { target, draft } = this.#costs;
    const catchUps = catchUpSeconds(candidates, this.#costs);
    const plainRows = candidates.length + numOtherRows;
    const rowSeconds = target.rowSeconds(plainRows + 1) - target.rowSeconds(plainRows);
    let best: { r: number; i: number; seconds: number; value: number } | null = null;
    for (const [r, candidate] of candidates.entries()) {
      const i = (this.#exploited.get(candidate.acceptance) ?? 0) + 1;
      if (!candidate.acceptance.learns || i > mostDraftsOf(candidate)) continue;
      const seconds = i === 1 ? (catchUps[r] as number) : 0;
      const pass = candidate.source === 'text' ? 0 : draft.rowSeconds(i === 1 ? usualRows(candidate) : 1);
      const value = (candidate.acceptance.survivals(candidate.most)[i] as number) / (seconds + rowSeconds + pass + 1e-12);
      if (best === null || value > best.value) best = { r, i, seconds, value };
    }
    if (best === null) return null;
    const { plain } = planSeconds(step, new Array<number>(candidates.length).fill(0), this.#costs);
    const tokens = candidates.length * (EXPLORATION * this.#sinceExplored - best.seconds / plain);
    return { r: best.r, i: best.i, tokens: Math.max(0, tokens) };
  }
}
