/** What the phases of a step cost, learned from the steps themselves. */
import { CostCurve, clipResidual } from './cost-curve.ts';

/** Share of a measurement of a well-known bucket by which everything is held to be slower or faster. */
const PACE_WEIGHT = 0.03;
const HOST_WEIGHT = 0.02;
/** Seconds of a turn of the host that is nothing out of the ordinary. */
const LONG_TURN = 2e-4;

/** A step as it was run. */
export interface MeasuredStep {
  /** Rows of the target's pass: tokens, newest and drafted ones and those of prompts. 0 = the target did not run. */
  readonly targetRows: number;
  readonly targetSeconds: number;
  /** `[numPasses]` rows of each pass of the draft model: all catch-up tokens in the first, then one for each sequence that drafts so far. */
  readonly draftRows: readonly number[];
  readonly draftSeconds: number;
  /** Seconds outside of both phases; null where they say nothing. */
  readonly hostSeconds?: number | null;
}

/** Estimates in seconds. Growing in rows, and defined for any number of them. */
export interface StepCostEstimates {
  targetSeconds(rows: number): number;
  /** Of one pass of the draft model; 0 for no rows. */
  draftSeconds(rows: number): number;
  readonly hostSeconds: number;
  /** Measurements that an estimate of the target stands on, of late. */
  targetEvidence(rows: number): number;
}

/**
 * Learns the costs. A pass that was never measured lies between those that were; a machine that becomes slower or faster as a whole
 * moves them all, also those that were not measured lately.
 */
export class StepCosts implements StepCostEstimates {
  readonly #target = new CostCurve();
  readonly #draft = new CostCurve();
  /** Logarithm of how much slower than at first everything is now. */
  #pace = 0;
  #hostSeconds: number | null = null;

  get hostSeconds(): number {
    return this.#hostSeconds ?? 0;
  }

  /** 1 for any number of rows while the target was never measured: then nothing is worth a draft. */
  targetSeconds(rows: number): number {
    const seconds = this.#target.seconds(rows);
    return seconds === null ? rows : seconds * Math.exp(this.#pace);
  }

  /** As dear as the target while the draft was never measured. */
  draftSeconds(rows: number): number {
    if (rows === 0) return 0;
    const seconds = this.#draft.seconds(rows);
    return seconds === null ? this.targetSeconds(rows) : seconds * Math.exp(this.#pace);
  }

  targetEvidence(rows: number): number {
    return this.#target.evidence(rows);
  }

  observe({ targetRows, targetSeconds, draftRows, draftSeconds, hostSeconds = null }: MeasuredStep): void {
    if (targetRows > 0 && targetSeconds > 0) this.#learn(this.#target, targetRows, Math.log(targetSeconds), 1);
    const rows = draftRows.filter((n) => n > 0);
    if (rows.length > 0 && draftSeconds > 0) this.#learnPasses(rows, draftSeconds);
    if (hostSeconds !== null) {
      this.#hostSeconds ??= hostSeconds;
      // Often nothing, sometimes a whole turn: the mean counts. What is far above it held the machine up once.
      const counted = Math.min(hostSeconds, 4 * this.#hostSeconds + LONG_TURN);
      this.#hostSeconds += HOST_WEIGHT * (counted - this.#hostSeconds);
    }
  }

  /** Only their sum is measured: each pass is off by the same factor, and learns as much as its share of the sum. */
  #learnPasses(rows: readonly number[], seconds: number): void {
    const estimates = rows.map((n) => this.draftSeconds(n));
    const total = estimates.reduce((sum, estimate) => sum + estimate, 0);
    const residual = Math.log(seconds / total);
    const byRows = new Map<number, { readonly estimate: number; count: number }>();
    rows.forEach((n, i) => {
      const estimate = estimates[i] as number;
      const pass = byRows.get(n);
      if (pass === undefined) byRows.set(n, { estimate, count: 1 });
      else pass.count++;
    });
    for (const [n, { estimate, count }] of byRows) this.#learn(this.#draft, n, Math.log(estimate) + residual, (count * estimate) / total);
  }

  #learn(curve: CostCurve, rows: number, logSeconds: number, weight: number): void {
    const estimate = curve.settled(rows) ? curve.seconds(rows) : null;
    curve.learn(rows, logSeconds - this.#pace, weight);
    if (estimate === null) return;
    const residual = logSeconds - this.#pace - Math.log(estimate);
    this.#pace += PACE_WEIGHT * weight * clipResidual(residual);
  }
}

/** How often each shape is run: what was held up once or twice does not count. */
export const SWEEP_REPEATS = 5;

/** A step for the sweep at start: `numSequences` decoding sequences, each with `numDrafts` drafts. */
export interface SweepShape {
  readonly numSequences: number;
  readonly numDrafts: number;
  /** Tokens of each sequence that the draft has not seen when the step begins. */
  readonly catchUpTokens: number;
}

/**
 * Steps to run and observe before the first request, as ordinary plans, `SWEEP_REPEATS` times each and in this order. With one token to catch up, a step of D sequences and K
 * drafts is a target pass of D (K + 1) rows and K draft passes of D rows, so that one list serves both curves; two longer catch-ups show what a draft's prefill costs.
 */
export function sweepShapes(limits: {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly numSpeculativeTokens: number;
}): readonly SweepShape[] {
  const { maxNumSeqs, maxNumBatchedTokens, numSpeculativeTokens } = limits;
  const upTo = (most: number, factor: number) => {
    const counts = [];
    for (let n = 1; n < most; n *= factor) counts.push(n);
    return [...counts, most];
  };
  const shapes = upTo(maxNumSeqs, 4).flatMap((numSequences) =>
    [0, ...upTo(numSpeculativeTokens, 2)].map((numDrafts) => ({ numSequences, numDrafts, catchUpTokens: 1 })),
  );
  const catchUps = [32, 256].map((catchUpTokens) => ({ numSequences: 1, numDrafts: 1, catchUpTokens }));
  return [...shapes, ...catchUps].filter(
    ({ numSequences, numDrafts, catchUpTokens }) => numSequences * Math.max(numDrafts + 1, catchUpTokens) <= maxNumBatchedTokens,
  );
}
