/** A step that may draft, and what it costs with so many drafts of each sequence. */
import type { StepCostEstimates } from './step-costs.ts';

/** Tokens that a draft model that keeps up has not seen when a step begins: one, or two where all drafts were accepted. */
const USUAL_CATCH_UP = 2;
/** Tokens over which a catch-up is spread at most: what is known of acceptance may not hold for longer. */
const HORIZON = 128;
/** Rows up to which costs are known for each number of them; beyond, one row more may cost a whole tile of a kernel. */
const EXACT_ROWS = 9;
const TILE_ROWS = 4;

/** A decoding sequence. */
export interface DraftCandidate {
  readonly acceptance: {
    /** Probability that drafts 1 … i are all accepted, 1 for i = 0; never grows in i. */
    survival(i: number): number;
  };
  /** Drafts that this step can take; 0 for a sequence that only decodes. */
  readonly most: number;
  /** Who offers the drafts: a model, pass by pass, or a text that is searched, at no cost but the target's rows. */
  readonly source: 'draft_model' | 'text';
  /** Tokens that the draft model has not seen, at least 1; whatever, when drafts come from a text. */
  readonly catchUpTokens: number;
  /** Tokens that the sequence may still generate, at least 1. */
  readonly remainingTokens: number;
}

/** The decoding sequences of a step, and what else is in it. */
export interface DraftStep {
  readonly candidates: readonly DraftCandidate[];
  /** Rows of the target's pass that belong to prompts. */
  readonly numOtherRows: number;
  /** Drafts that all sequences together may have: rows or blocks that are left. */
  readonly mostDrafts?: number;
}

/** Drafts that a candidate can make use of: its last token comes without one. */
export function mostDraftsOf({ most, remainingTokens }: DraftCandidate): number {
  return Math.max(0, Math.min(most, remainingTokens - 1));
}

/** Rows of a candidate in the first draft pass, as far as every step has them. */
export function usualRows({ catchUpTokens }: DraftCandidate): number {
  return Math.min(catchUpTokens, USUAL_CATCH_UP);
}

/** Tokens that pay for a catch-up. */
export function payingTokens({ remainingTokens }: DraftCandidate): number {
  return Math.min(remainingTokens, HORIZON);
}

/** `[numCandidates]` seconds that the first draft pass takes longer because a candidate's draft is further behind than usual. */
export function catchUpSeconds(candidates: readonly DraftCandidate[], costs: StepCostEstimates): Float64Array {
  const seconds = new Float64Array(candidates.length);
  if (!candidates.some(isBehind)) return seconds;
  const rows = candidates.reduce((sum, candidate) => sum + (candidate.source === 'draft_model' ? usualRows(candidate) : 0), 0);
  const usual = costs.draftSeconds(rows);
  for (const [r, candidate] of candidates.entries()) {
    if (isBehind(candidate)) seconds[r] = costs.draftSeconds(rows + candidate.catchUpTokens - usualRows(candidate)) - usual;
  }
  return seconds;
}

function isBehind({ source, catchUpTokens }: DraftCandidate): boolean {
  return source === 'draft_model' && catchUpTokens > USUAL_CATCH_UP;
}

/**
 * Seconds that a step costs those who decode in it. Rows of prompts have to be computed in some step, so that their own time is left out: it would make drafts look
 * cheap. A catch-up serves the tokens that the sequence will generate, and each pays its part.
 */
export function stepSeconds(step: DraftStep, numDrafts: readonly number[], costs: StepCostEstimates): number {
  const prices = catchUpSeconds(step.candidates, costs);
  let catchUp = 0;
  for (const [r, candidate] of step.candidates.entries()) {
    const drafts = numDrafts[r] as number;
    if (drafts === 0 || prices[r] === 0) continue;
    let tokens = 0;
    for (let i = 0; i <= drafts; i++) tokens += candidate.acceptance.survival(i);
    catchUp += ((prices[r] as number) * tokens) / payingTokens(candidate);
  }
  let draft = 0;
  for (const rows of draftPassRows(step.candidates, numDrafts)) draft += costs.draftSeconds(rows);
  const rows = step.candidates.length + step.numOtherRows;
  const verify = costs.targetSeconds(rows + sum(numDrafts)) - costs.targetSeconds(rows);
  return plainSeconds(step, costs) + verify + draft + catchUp;
}

/** Seconds that target and draft take for a step, with everything that is in it: what will be measured. */
export function passSeconds(step: DraftStep, numDrafts: readonly number[], costs: StepCostEstimates): number {
  const { candidates, numOtherRows } = step;
  let seconds = costs.targetSeconds(candidates.length + numOtherRows + sum(numDrafts));
  for (const rows of draftPassRows(candidates, numDrafts, ({ catchUpTokens }) => catchUpTokens)) seconds += costs.draftSeconds(rows);
  return seconds;
}

/** Tokens that a step is expected to yield. */
export function expectedTokens({ candidates }: DraftStep, numDrafts: readonly number[]): number {
  let tokens = 0;
  for (const [r, { acceptance }] of candidates.entries()) {
    for (let i = 0; i <= (numDrafts[r] as number); i++) tokens += acceptance.survival(i);
  }
  return tokens;
}

/** Seconds of a step without drafts. */
export function plainSeconds({ candidates }: DraftStep, costs: StepCostEstimates): number {
  return costs.hostSeconds + costs.targetSeconds(candidates.length);
}

/** `[numCandidates]` seconds that one draft more for one candidate costs at most, catch-up aside. */
export function nextSlotSeconds(step: DraftStep, numDrafts: readonly number[], costs: StepCostEstimates): Float64Array {
  const { candidates, numOtherRows } = step;
  const passRows = draftPassRows(candidates, numDrafts);
  const verify = growth((rows) => costs.targetSeconds(rows), candidates.length + numOtherRows + sum(numDrafts), 1);
  return Float64Array.from(candidates, (candidate, r) => {
    if (candidate.source === 'text') return verify;
    const depth = numDrafts[r] as number;
    return verify + growth((rows) => costs.draftSeconds(rows), passRows[depth] ?? 0, depth === 0 ? usualRows(candidate) : 1);
  });
}

function growth(seconds: (rows: number) => number, rows: number, more: number): number {
  return seconds(rows + (rows + more > EXACT_ROWS ? Math.max(more, TILE_ROWS) : more)) - seconds(rows);
}

/** `[numPasses]` rows of each draft pass; the first has `firstRows` of each sequence. */
function draftPassRows(candidates: readonly DraftCandidate[], numDrafts: readonly number[], firstRows = usualRows): number[] {
  const passRows: number[] = [];
  for (const [r, candidate] of candidates.entries()) {
    const drafts = numDrafts[r] as number;
    if (candidate.source === 'text') continue;
    for (let i = 0; i < drafts; i++) passRows[i] = (passRows[i] ?? 0) + (i === 0 ? firstRows(candidate) : 1);
  }
  return passRows;
}

function sum(numbers: readonly number[]): number {
  let total = 0;
  for (const number of numbers) total += number;
  return total;
}
