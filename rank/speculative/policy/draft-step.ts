/** A step that may draft, and the seconds of a plan for it. */
import type { Acceptance } from './acceptance.ts';
import { HORIZON } from './constants.ts';
import { emptyPass } from './pass-costs.ts';
import type { StepCostEstimates } from './step-costs.ts';

/** Max catch-up tokens of a draft model that drafted in the step before: 1, or 2 where all drafts were accepted. */
const USUAL_CATCH_UP = 2;

/** A decoding sequence, with its estimate for the method that would draft for it in this step. */
export interface DraftCandidate {
  readonly acceptance: Acceptance;
  /** Max drafts in this step; 0 for a sequence that only decodes. */
  readonly most: number;
  /** Source of the drafts: a model, at a pass each, or the text, at the cost of the target's rows only. */
  readonly source: 'draft_model' | 'text';
  /** Tokens of the sequence, which its newest token attends to. */
  readonly contextTokens: number;
  /** Tokens that the draft model has not seen, at least 1; of no meaning where drafts come from a text. */
  readonly catchUpTokens: number;
  /** Tokens that the sequence may still generate, at least 1. */
  readonly remainingTokens: number;
}

/** The decoding sequences of a step, and what else is in it. */
export interface DraftStep {
  readonly candidates: readonly DraftCandidate[];
  /** Rows of the target's pass that belong to prompts. */
  readonly numOtherRows: number;
  /** Max drafts of all sequences together, by rows or blocks left. */
  readonly mostDrafts?: number;
}

/** Max useful drafts of a candidate: its last token needs none. */
export function mostDraftsOf({ most, remainingTokens }: DraftCandidate): number {
  return Math.max(0, Math.min(most, remainingTokens - 1));
}

/** Rows of a candidate in the first draft pass, without the catch-up beyond the usual. */
export function usualRows({ source, catchUpTokens }: DraftCandidate): number {
  return source === 'text' ? 0 : Math.min(catchUpTokens, USUAL_CATCH_UP);
}

/** `[numCandidates]` seconds that the first draft pass takes longer because a candidate's draft is further behind than usual. */
export function catchUpSeconds(candidates: readonly DraftCandidate[], { draft }: StepCostEstimates): Float64Array {
  const rows = candidates.reduce((sum, candidate) => sum + usualRows(candidate), 0);
  return Float64Array.from(candidates, (candidate) => {
    const more = candidate.source === 'text' ? 0 : candidate.catchUpTokens - usualRows(candidate);
    return more === 0 ? 0 : draft.rowSeconds(rows + more) - draft.rowSeconds(rows);
  });
}

/** Tokens over which a candidate's catch-up is amortized. */
export function payingTokens({ remainingTokens }: DraftCandidate): number {
  return Math.min(remainingTokens, HORIZON);
}

/** Seconds of a plan. */
export interface PlanSeconds {
  /** Of a step without drafts, for those who decode. */
  readonly plain: number;
  /** Of the plan for those who decode: prompts have to be computed in some step, and would make drafts look cheap. */
  readonly plan: number;
  /** Of both models' passes with everything that is in them: what will be measured. */
  readonly passes: number;
}

export function planSeconds(step: DraftStep, numDrafts: readonly number[], costs: StepCostEstimates): PlanSeconds {
  const { candidates, numOtherRows } = step;
  const target = { ...emptyPass, rows: candidates.length };
  const passes: (typeof target)[] = [];
  for (const [r, { contextTokens, source, catchUpTokens }] of candidates.entries()) {
    const drafts = numDrafts[r] as number;
    target.rows += drafts;
    target.contextTokens += contextTokens;
    target.draftContextTokens += drafts * contextTokens;
    for (let i = 0; i < drafts && source === 'draft_model'; i++) {
      const pass = passes[i] ?? { ...emptyPass };
      passes[i] = pass;
      pass.rows += i === 0 ? catchUpTokens : 1;
      pass.contextTokens += contextTokens;
    }
  }
  const draft = passes.reduce((sum, pass) => sum + costs.draft.seconds(pass), 0);
  const plainTarget = costs.target.seconds({ ...target, rows: candidates.length, draftContextTokens: 0 });
  const all = costs.target.seconds({ ...target, rows: target.rows + numOtherRows });
  const prompts = costs.target.rowSeconds(candidates.length + numOtherRows) - costs.target.rowSeconds(candidates.length);
  return {
    plain: costs.hostSeconds(false) + plainTarget,
    plan: costs.hostSeconds(target.rows > candidates.length) + all - prompts + draft,
    passes: all + draft,
  };
}
