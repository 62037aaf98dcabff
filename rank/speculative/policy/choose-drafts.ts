/** Number of drafts of each sequence of a step: the plan of highest goodput, in tokens per second. */
import { catchUpSeconds, type DraftStep, mostDraftsOf, payingTokens, planSeconds, usualRows } from './draft-step.ts';
import type { StepCostEstimates } from './step-costs.ts';

/** A draft slot: draft `i` (from 1) of candidate `r`. */
interface Slot {
  readonly r: number;
  readonly i: number;
  readonly isText: boolean;
  /** Expected tokens, and the exploration bonus where it has one. */
  readonly tokens: number;
  /** Seconds of context and catch-up, which depend on no other slot. */
  readonly seconds: number;
  /** Tokens per second of the slot, capped at that of the slot before it. */
  readonly value: number;
}

/** Exploration bonus of one slot, in tokens. */
export interface Bonus {
  readonly r: number;
  readonly i: number;
  readonly tokens: number;
}

export interface ChoiceOptions {
  /** Min goodput of a plan with drafts, in units of a plain step's. */
  readonly leastGain?: number;
  readonly bonus?: Bonus | null;
}

/**
 * `[numCandidates]` drafts.
 *
 * Slots are admitted in order of value, up to the point of highest goodput. Costs are not convex: the first draft of a
 * batch pays for a whole pass of the draft model, and kernels compute rows in tiles. So the walk continues past slots
 * that do not pay, and is repeated for each depth of the draft model, whose passes all sequences that reach it share.
 */
export function chooseDrafts(step: DraftStep, costs: StepCostEstimates, { leastGain = 1, bonus = null }: ChoiceOptions = {}): number[] {
  const numDrafts = step.candidates.map(() => 0);
  const slots = slotsOf(step, costs, bonus);
  if (slots.length === 0) return numDrafts;
  const { plain } = planSeconds(step, numDrafts, costs);
  const walk = walkOver(step, costs, slots, plain + costs.hostSeconds(true) - costs.hostSeconds(false));
  const maxDepth = slots.reduce((depth, { i, isText }) => (isText ? depth : Math.max(depth, i)), 0);
  let best = { goodput: (leastGain * numDrafts.length) / plain, depth: 0, end: 0 };
  for (let depth = slots.some(({ isText }) => isText) ? 0 : 1; depth <= maxDepth; depth++) {
    const found = walk(depth);
    if (found.goodput > best.goodput * (1 + 1e-9)) best = { ...found, depth };
  }
  for (const { r, i, isText } of slots.slice(0, best.end)) {
    if (isText || i <= best.depth) numDrafts[r] = i;
  }
  return numDrafts;
}

/** All slots, by descending value. */
function slotsOf(step: DraftStep, costs: StepCostEstimates, bonus: Bonus | null): Slot[] {
  const { candidates, numOtherRows } = step;
  const most = candidates.map(mostDraftsOf);
  const numSlots = most.reduce((sum, n) => sum + n, 0);
  if (numSlots === 0) return [];
  const numModel = candidates.filter(({ source }, r) => source === 'draft_model' && (most[r] as number) > 0).length;
  const plainRows = candidates.length + numOtherRows;
  const rowSeconds = (costs.target.rowSeconds(plainRows + numSlots) - costs.target.rowSeconds(plainRows)) / numSlots + 1e-12;
  const passSeconds = numModel === 0 ? 0 : costs.draft.rowSeconds(numModel) / numModel;
  const catchUps = catchUpSeconds(candidates, costs);
  const slots: Slot[] = [];
  for (const [r, candidate] of candidates.entries()) {
    const isText = candidate.source === 'text';
    const survivals = candidate.acceptance.survivals(candidate.most);
    const price = (catchUps[r] as number) / payingTokens(candidate);
    let value = Number.POSITIVE_INFINITY;
    for (let i = 1; i <= (most[r] as number); i++) {
      const survival = survivals[i] as number;
      const tokens = survival + (bonus?.r === r && bonus.i === i ? bonus.tokens : 0);
      let seconds = costs.target.draftContextSeconds * candidate.contextTokens;
      if (!isText) seconds += costs.draft.contextSeconds * candidate.contextTokens;
      seconds += price * (i === 1 ? 1 + survival : survival);
      value = Math.min(value, tokens / (seconds + rowSeconds + (isText ? 0 : passSeconds)));
      slots.push({ r, i, isText, tokens, seconds, value });
    }
  }
  // Array.sort is stable: equals keep the order of their positions within a sequence.
  return slots.sort((a, b) => b.value - a.value || a.i - b.i);
}

/**
 * A function of the depth: the best point of the walk over slots within that many draft passes. `end` also counts the
 * slots skipped.
 * @param plainSeconds - seconds of the step before any slot
 */
function walkOver({ candidates, numOtherRows, mostDrafts }: DraftStep, costs: StepCostEstimates, slots: Slot[], plainSeconds: number) {
  const plainRows = candidates.length + numOtherRows;
  const plain = costs.target.rowSeconds(plainRows);
  const verify = Float64Array.from({ length: slots.length + 1 }, (_, n) => costs.target.rowSeconds(plainRows + n) - plain);
  const firstRows = candidates.map(usualRows);
  const numDraftRows = Math.max(
    candidates.length,
    firstRows.reduce((sum, n) => sum + n, 0),
  );
  const draft = Float64Array.from({ length: numDraftRows + 1 }, (_, n) => costs.draft.rowSeconds(n));
  return (depth: number) => {
    const passRows = new Int32Array(depth + 1);
    let tokens = candidates.length;
    let seconds = plainSeconds;
    let admitted = 0;
    let best = { goodput: 0, end: 0 };
    for (const [index, slot] of slots.entries()) {
      if (!slot.isText && slot.i > depth) continue;
      if (++admitted > (mostDrafts ?? slots.length)) break;
      tokens += slot.tokens;
      seconds += slot.seconds;
      if (!slot.isText) {
        const before = passRows[slot.i] as number;
        const rows = before + (slot.i === 1 ? (firstRows[slot.r] as number) : 1);
        passRows[slot.i] = rows;
        seconds += (draft[rows] as number) - (draft[before] as number);
      }
      const goodput = tokens / (seconds + (verify[admitted] as number));
      if (goodput > best.goodput) best = { goodput, end: index + 1 };
    }
    return best;
  };
}

/** `[numCandidates]` max drafts, regardless of value. */
export function allDrafts({ candidates, mostDrafts = Number.POSITIVE_INFINITY }: DraftStep): number[] {
  const numDrafts = candidates.map(mostDraftsOf);
  // Without room for all, the deepest are dropped first.
  let left = numDrafts.reduce((sum, n) => sum + n, 0);
  for (let depth = Math.max(0, ...numDrafts); left > mostDrafts && depth > 0; depth--) {
    for (let r = numDrafts.length - 1; r >= 0 && left > mostDrafts; r--) {
      if (numDrafts[r] !== depth) continue;
      numDrafts[r] = depth - 1;
      left--;
    }
  }
  return numDrafts;
}
