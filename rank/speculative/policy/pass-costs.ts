/** Seconds of a forward pass by its rows and attended tokens, learned from noisy measurements. */
import { CONTEXT_DRIFT, EXACT_ROWS, MEASUREMENT_NOISE, MOST_EVIDENCE, PRIOR_CONTEXT } from './constants.ts';
import { clipResidual, MeasuredSeconds } from './measured-seconds.ts';

/** Load of one pass. */
export interface PassLoad {
  readonly rows: number;
  /** Tokens attended to by newest tokens, summed over sequences. */
  readonly contextTokens: number;
  /** The same for the drafts behind them, summed over all drafts. CPUs pay it row by row, GPUs read a sequence's context once. */
  readonly draftContextTokens: number;
}

export const emptyPass = { rows: 0, contextTokens: 0, draftContextTokens: 0 };

interface Knot {
  readonly rows: number;
  readonly estimate: MeasuredSeconds;
}

/** seconds = base(rows) + a · contextTokens + b · draftContextTokens, where base is monotone and linear between knots. */
export class PassCosts {
  /** Ascending in rows. */
  readonly #knots: Knot[] = [];
  /** `[numKnots]` seconds, made monotone; null when a knot has changed. */
  #base: Float64Array | null = null;
  /** Seconds of a token of context, of newest tokens and of drafts; and the variance of each. */
  readonly #slopes: [number, number] = [0, 0];
  readonly #variances: [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  #now = 0;

  get isMeasured(): boolean {
    return this.#knots.length > 0;
  }

  /** Seconds per token that a newest token attends to. */
  get contextSeconds(): number {
    return this.#slopes[0];
  }

  /** Seconds per token that a draft attends to. */
  get draftContextSeconds(): number {
    return this.#slopes[1];
  }

  seconds({ rows, contextTokens, draftContextTokens }: PassLoad): number {
    return this.rowSeconds(rows) + this.#slopes[0] * contextTokens + this.#slopes[1] * draftContextTokens;
  }

  /** Seconds without context. Linear beyond the last knot; proportional to rows there with one knot or none. */
  rowSeconds(rows: number): number {
    if (rows <= 0) return 0;
    this.#base ??= this.#monotone();
    const ys = this.#base;
    const knots = this.#knots;
    const last = knots.length - 1;
    if (last < 0) return rows;
    const x = (i: number) => (knots[i] as Knot).rows;
    if (last === 0) return ((ys[0] as number) * Math.max(rows, x(0))) / x(0);
    if (rows <= x(0)) return ys[0] as number;
    let high = 1;
    while (high < last && x(high) < rows) high++;
    let low = high - 1;
    // Neighbouring knots are too close to extrapolate a line from.
    if (rows > x(last)) while (low > 0 && x(low) > x(last) / 2) low--;
    return (ys[low] as number) + (((ys[high] as number) - (ys[low] as number)) * (rows - x(low))) / (x(high) - x(low));
  }

  /** Advances the age of measurements by one step. */
  tick(): void {
    this.#now++;
  }

  /** A pass took exp(`residual`) times `estimate` seconds, its estimate. `weight` up to 1: the pass's share of what was measured. */
  learn(load: PassLoad, estimate: number, residual: number, weight = 1): void {
    for (const { rows, share } of knotsAround(load.rows)) this.#knotAt(rows).estimate.learn(residual, this.#now, weight * share);
    this.#learnSlopes(load, estimate, clipResidual(residual), weight);
    this.#base = null;
  }

  /**
   * A Kalman filter per slope, to which the other's uncertainty is noise. In a step with drafts theirs learns most, so
   * that where a GPU reads a context once, the cost of drafts is over- rather than underestimated.
   */
  #learnSlopes({ rows, contextTokens, draftContextTokens }: PassLoad, estimate: number, residual: number, weight: number): void {
    const tokens = [contextTokens, draftContextTokens] as const;
    const prior = (estimate / (rows * PRIOR_CONTEXT)) ** 2;
    let total = (MEASUREMENT_NOISE * estimate) ** 2;
    for (const k of [0, 1] as const) {
      this.#variances[k] = Math.min(prior, this.#variances[k] + CONTEXT_DRIFT * prior);
      total += this.#variances[k] * tokens[k] ** 2;
    }
    for (const k of [0, 1] as const) {
      const gain = (weight * this.#variances[k] * tokens[k]) / total;
      this.#slopes[k] = Math.max(0, this.#slopes[k] + gain * residual * estimate);
      this.#variances[k] *= 1 - gain * tokens[k];
    }
  }

  #knotAt(rows: number): Knot {
    const known = this.#knots.find((knot) => knot.rows === rows);
    if (known !== undefined) return known;
    const knot = { rows, estimate: new MeasuredSeconds(this.rowSeconds(rows), this.#now) };
    this.#knots.push(knot);
    this.#knots.sort((a, b) => a.rows - b.rows);
    this.#base = null;
    return knot;
  }

  /** `[numKnots]` isotonic regression: pools adjacent violators. */
  #monotone(): Float64Array {
    const numKnots = this.#knots.length;
    const means = new Float64Array(numKnots);
    const weights = new Float64Array(numKnots);
    const ends = new Int32Array(numKnots);
    let last = -1;
    for (const [i, { estimate }] of this.#knots.entries()) {
      let mean = estimate.seconds;
      let weight = Math.min(estimate.numMeasured, MOST_EVIDENCE) + 1e-3;
      for (; last >= 0 && (means[last] as number) > mean; last--) {
        const sum = weight + (weights[last] as number);
        mean = (mean * weight + (means[last] as number) * (weights[last] as number)) / sum;
        weight = sum;
      }
      last++;
      means[last] = mean;
      weights[last] = weight;
      ends[last] = i + 1;
    }
    const base = new Float64Array(numKnots);
    for (let pool = 0, i = 0; pool <= last; pool++) for (; i < (ends[pool] as number); i++) base[i] = means[pool] as number;
    return base;
  }
}

/** The knots that a number of rows lies on or between (1, 2, … 9, 12, 16, 24, 32, 48, …), with their shares in it. */
function knotsAround(rows: number): { rows: number; share: number }[] {
  if (rows <= EXACT_ROWS) return [{ rows, share: 1 }];
  const octave = 8 * 2 ** Math.floor(Math.log2(rows / 8));
  const isUpper = rows >= 1.5 * octave;
  const low = Math.max(EXACT_ROWS, isUpper ? 1.5 * octave : octave);
  const high = isUpper ? 2 * octave : 1.5 * octave;
  const share = (rows - low) / (high - low);
  return share === 0
    ? [{ rows, share: 1 }]
    : [
        { rows: low, share: 1 - share },
        { rows: high, share },
      ];
}
