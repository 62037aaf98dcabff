/** Seconds of a forward pass by its rows and attended tokens, learned from noisy measurements. */
import {
  CLIP,
  CONTEXT_DRIFT,
  EXACT_ROWS,
  FIRST_MEASUREMENTS,
  LEAST_WEIGHT,
  MEASUREMENT_NOISE,
  MOST_EVIDENCE,
  MOST_WEIGHT,
  PRIOR_CONTEXT,
  STALE_WEIGHT,
} from './constants.ts';

/** Load of one pass. */
export interface PassLoad {
  readonly rows: number;
  /** Tokens attended to by newest tokens, summed over sequences. */
  readonly contextTokens: number;
  /** The same for the drafts behind them, summed over all drafts. CPUs pay it row by row, GPUs read a sequence's context once. */
  readonly draftContextTokens: number;
}

interface Knot {
  readonly rows: number;
  seconds: number;
  numMeasured: number;
  lastMeasured: number;
  readonly first: number[];
}

/** Rows up to which estimates are memoized. */
const MOST_TABLE_ROWS = 4096;

/** Clips a residual to ±`CLIP`. */
export function clipResidual(residual: number): number {
  return Math.max(-CLIP, Math.min(CLIP, residual));
}

/** seconds = base(rows) + a · contextTokens + b · draftContextTokens, where base is monotone and linear between knots. */
export class PassCosts {
  /** Ascending in rows. */
  readonly #knots: Knot[] = [];
  /** `[numKnots]` seconds, made monotone; null when a knot has changed. */
  #base: Float64Array | null = null;
  /** `[rows]` seconds as far as they were asked for since, NaN elsewhere: a decision asks for the same rows many times. */
  #table = new Float64Array(64).fill(Number.NaN);
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
    if (this.#base === null) {
      this.#base = this.#monotone();
      this.#table.fill(Number.NaN);
    }
    if (rows >= MOST_TABLE_ROWS) return this.#interpolate(this.#base, rows);
    if (rows >= this.#table.length) {
      const longer = new Float64Array(2 * rows).fill(Number.NaN);
      longer.set(this.#table);
      this.#table = longer;
    }
    const known = this.#table[rows] as number;
    if (!Number.isNaN(known)) return known;
    const seconds = this.#interpolate(this.#base, rows);
    this.#table[rows] = seconds;
    return seconds;
  }

  #interpolate(ys: Float64Array, rows: number): number {
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
    const clipped = clipResidual(residual);
    for (const { rows, share } of knotsAround(load.rows)) this.#learnKnot(rows, residual, clipped, weight * share);
    this.#learnSlopes(load, estimate, clipped, weight);
    this.#base = null;
  }

  /** The median of the first measurements, then a running mean in which a knot that is measured rarely follows faster. */
  #learnKnot(rows: number, residual: number, clipped: number, weight: number): void {
    const knot = this.#knotAt(rows);
    if (weight >= 0.5 && knot.first.length < FIRST_MEASUREMENTS) {
      knot.first.push(knot.seconds * Math.exp(residual));
      const sorted = [...knot.first].sort((a, b) => a - b);
      const middle = sorted.length / 2;
      knot.seconds = Math.sqrt((sorted[Math.ceil(middle) - 1] as number) * (sorted[Math.floor(middle)] as number));
    } else {
      const rate = Math.min(MOST_WEIGHT, Math.max(LEAST_WEIGHT, STALE_WEIGHT * (this.#now - knot.lastMeasured)));
      knot.seconds *= Math.exp(rate * weight * clipped);
    }
    knot.numMeasured += weight;
    if (weight >= 0.25) knot.lastMeasured = this.#now;
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
    const knot = { rows, seconds: this.rowSeconds(rows), numMeasured: 0, lastMeasured: this.#now, first: [] };
    this.#knots.push(knot);
    this.#knots.sort((a, b) => a.rows - b.rows);
    this.#base = null;
    return knot;
  }

  /** Isotonic regression: pool adjacent violators. */
  #monotone(): Float64Array {
    const pools: { size: number; weight: number; mean: number }[] = [];
    for (const { seconds, numMeasured } of this.#knots) {
      let pool = { size: 1, weight: Math.min(numMeasured, MOST_EVIDENCE) + 1e-3, mean: seconds };
      for (let last = pools.at(-1); last !== undefined && last.mean > pool.mean; last = pools.at(-1)) {
        const weight = last.weight + pool.weight;
        pool = { size: last.size + pool.size, weight, mean: (last.weight * last.mean + pool.weight * pool.mean) / weight };
        pools.pop();
      }
      pools.push(pool);
    }
    return Float64Array.from(pools.flatMap(({ size, mean }) => new Array<number>(size).fill(mean)));
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
