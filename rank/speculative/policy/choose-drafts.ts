/** How many tokens to draft for each sequence of a step. */
import { catchUpSeconds, type DraftCandidate, type DraftStep, mostDraftsOf, payingTokens, plainSeconds, usualRows } from './draft-step.ts';
import type { StepCostEstimates } from './step-costs.ts';

/** What drafts must promise over a plain step: less is no more than the errors of what was measured, which are larger the less there was. */
const minGain = (evidence: number) => 0.01 + 0.15 / Math.sqrt(Math.max(1, evidence));

/** A draft slot: draft `i` (from 1) of candidate `r`. */
interface Slot {
  readonly r: number;
  readonly i: number;
  readonly survival: number;
  /** Tokens per second of the run of slots that it is part of; never grows in `i`. */
  value: number;
}

/**
 * `[numCandidates]` drafts, chosen for the most tokens per second of the step.
 *
 * Slots are admitted in order of value, to the point where expected tokens over seconds is highest. Costs are not convex — the first draft of a batch pays for a whole
 * pass of the draft model, and kernels compute rows in tiles — so that the walk goes on past slots that do not pay, and is taken once for every depth of
 * the draft model, whose passes are then paid by all sequences that reach it.
 * @param leastGain - how many times the tokens per second of a plain step they must promise
 */
export function chooseDrafts(step: DraftStep, costs: StepCostEstimates, leastGain = 1): number[] {
  const { candidates } = step;
  const numDrafts = new Array<number>(candidates.length).fill(0);
  const walk = new SlotWalk(step, costs);
  if (walk.slots.length === 0) return numDrafts;
  const gain = Math.max(leastGain, 1 + minGain(costs.targetEvidence(candidates.length)));
  let best = { goodput: (gain * candidates.length) / plainSeconds(step, costs), depth: 0, end: 0 };
  for (let depth = walk.hasText ? 0 : 1; depth <= Math.max(walk.maxDepth, 0); depth++) {
    const found = walk.to(depth);
    if (found.goodput > best.goodput * (1 + 1e-9)) best = { ...found, depth };
  }
  for (const { r, i } of walk.slots.slice(0, best.end)) {
    if (walk.reaches(best.depth, r, i)) numDrafts[r] = i;
  }
  return numDrafts;
}

/** `[numCandidates]` as many drafts as there may be, whatever they are worth. */
export function allDrafts({ candidates, mostDrafts = Number.POSITIVE_INFINITY }: DraftStep): number[] {
  const numDrafts = candidates.map(mostDraftsOf);
  // Where there is no room for all, the deepest go first.
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

class SlotWalk {
  /** In the order of their admission. */
  readonly slots: readonly Slot[];
  /** Drafts of a sequence by the draft model at most. */
  readonly maxDepth: number;
  readonly hasText: boolean;
  readonly #step: DraftStep;
  readonly #isText: readonly boolean[];
  readonly #usualRows: readonly number[];
  /** `[numCandidates]` seconds of a catch-up for each token that pays for it. */
  readonly #tokenPrices: Float64Array;
  /** `[numSlots + 1]` seconds of the target for so many rows more, and `[…]` of a draft pass for so many rows. */
  readonly #verifySeconds: Float64Array;
  readonly #draftSeconds: Float64Array;
  readonly #plainSeconds: number;
  readonly #passRows: Int32Array;

  constructor(step: DraftStep, costs: StepCostEstimates) {
    const { candidates, numOtherRows } = step;
    this.#step = step;
    const most = candidates.map(mostDraftsOf);
    this.#isText = candidates.map(({ source }) => source === 'text');
    this.#usualRows = candidates.map(usualRows);
    this.hasText = most.some((n, r) => n > 0 && this.#isText[r]);
    this.maxDepth = most.reduce((depth, n, r) => (this.#isText[r] ? depth : Math.max(depth, n)), 0);
    this.#passRows = new Int32Array(this.maxDepth + 1);
    const numSlots = most.reduce((sum, n) => sum + n, 0);
    const plainRows = candidates.length + numOtherRows;
    const plain = costs.targetSeconds(plainRows);
    this.#verifySeconds = new Float64Array(numSlots + 1);
    for (let n = 1; n <= numSlots; n++) this.#verifySeconds[n] = costs.targetSeconds(plainRows + n) - plain;
    const draftRows = this.maxDepth === 0 ? 0 : this.#usualRows.reduce((sum, n) => sum + n, 0);
    this.#draftSeconds = new Float64Array(draftRows + 1);
    for (let n = 1; n <= draftRows; n++) this.#draftSeconds[n] = costs.draftSeconds(n);
    this.#plainSeconds = plainSeconds(step, costs);
    this.#tokenPrices = catchUpSeconds(candidates, costs).map((price, r) => price / payingTokens(candidates[r] as DraftCandidate));
    const row = (this.#verifySeconds[numSlots] as number) / Math.max(1, numSlots) + 1e-12;
    const numModel = most.filter((n, r) => n > 0 && !this.#isText[r]).length;
    const pass = numModel === 0 ? 0 : (this.#draftSeconds[numModel] as number) / numModel;
    this.slots = candidates.flatMap((_, r) => this.#slotsOf(r, most[r] as number, this.#isText[r] ? row : row + pass));
    // Array.sort is stable: equals keep the order of their positions within a sequence.
    (this.slots as Slot[]).sort((a, b) => b.value - a.value || a.i - b.i);
  }

  /** Whether a slot is there when the draft model runs `depth` passes. */
  reaches(depth: number, r: number, i: number): boolean {
    return i <= depth || (this.#isText[r] as boolean);
  }

  /** The best of all points of the walk over slots that `depth` passes reach; its `end` counts those left out, too. */
  to(depth: number): { readonly goodput: number; readonly end: number } {
    const { slots } = this;
    const { mostDrafts = slots.length } = this.#step;
    const draft = this.#draftSeconds;
    const passRows = this.#passRows.fill(0);
    let tokens = this.#step.candidates.length;
    let seconds = this.#plainSeconds;
    let admitted = 0;
    let bestGoodput = 0;
    let bestEnd = 0;
    for (let end = 0; end < slots.length; end++) {
      const { r, i, survival } = slots[end] as Slot;
      if (!this.reaches(depth, r, i)) continue;
      if (++admitted > mostDrafts) break;
      tokens += survival;
      if (!this.#isText[r]) {
        const before = passRows[i] as number;
        const rows = before + (i === 1 ? (this.#usualRows[r] as number) : 1);
        passRows[i] = rows;
        seconds += (draft[rows] as number) - (draft[before] as number);
        seconds += (this.#tokenPrices[r] as number) * (i === 1 ? 1 + survival : survival);
      }
      const goodput = tokens / (seconds + (this.#verifySeconds[admitted] as number));
      if (goodput <= bestGoodput) continue;
      bestGoodput = goodput;
      bestEnd = end + 1;
    }
    return { goodput: bestGoodput, end: bestEnd };
  }

  /**
   * A sequence's slots with their values: survival over a slot's usual seconds. Where the first one also pays for a catch-up, those after it, which need it as well,
   * share: the run with the best value in all counts as one.
   */
  #slotsOf(r: number, most: number, usualSeconds: number): Slot[] {
    const { acceptance } = this.#step.candidates[r] as DraftCandidate;
    const price = this.#isText[r] ? 0 : (this.#tokenPrices[r] as number);
    const slots: Slot[] = [];
    for (let i = 1; i <= most; i++) {
      const survival = acceptance.survival(i);
      slots.push({ r, i, survival, value: survival / usualSeconds });
    }
    if (price === 0) return slots;
    const runs: { tokens: number; seconds: number; size: number }[] = [];
    for (const { i, survival } of slots) {
      let run = { tokens: survival, seconds: usualSeconds + price * (survival + (i === 1 ? 1 : 0)), size: 1 };
      for (let top = runs.at(-1); top !== undefined && top.tokens * run.seconds < run.tokens * top.seconds; top = runs.at(-1)) {
        run = { tokens: top.tokens + run.tokens, seconds: top.seconds + run.seconds, size: top.size + run.size };
        runs.pop();
      }
      runs.push(run);
    }
    let at = 0;
    for (const { tokens, seconds, size } of runs) {
      for (const slot of slots.slice(at, at + size)) slot.value = tokens / seconds;
      at += size;
    }
    return slots;
  }
}
