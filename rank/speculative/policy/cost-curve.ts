/** Seconds of a forward pass as a function of its rows, learned from noisy measurements. */

/** Measurements after which a knot counts as known; and the share of a new one in a knot that has many. */
const SETTLED = 8;
const MIN_WEIGHT = 0.01;
/** Largest residual that counts, as a logarithm: a machine is held up at times, by any factor. */
const CLIP = 0.3;
/** Rows up to which every number of them that comes often enough gets a knot of its own. */
const MOST_EXACT_ROWS = 512;

/** A residual as far as it counts. The same for all means that learn from it: otherwise they would drift apart. */
export function clipResidual(residual: number): number {
  return Math.max(-CLIP, Math.min(CLIP, residual));
}

interface Knot {
  readonly rows: number;
  logSeconds: number;
  /** Measurements, each as far as it was this knot's. */
  count: number;
  /** Those of just so many rows. */
  numExact: number;
  /** What the first ones would have it be. */
  readonly first: number[];
}

/** `[numKnots]` each, ascending. */
interface Points {
  readonly rows: Float64Array;
  readonly seconds: Float64Array;
}

/**
 * A monotone curve, linear between knots at 1, 2, … 9, 12, 16, 24, 32, 48, … rows. Where rows are many, neighbouring numbers of rows share their knots: measured each by
 * itself, what one row more costs would be less than the noise. One that comes often, such as a batch without drafts, gets its own. Logarithms of seconds are at
 * pace 0: how much slower the machine is as a whole is the caller's matter.
 */
export class CostCurve {
  /** Ascending in rows. */
  readonly #knots: Knot[] = [];
  readonly #byRows = new Map<number, Knot>();
  /** Times that a number of rows without a knot of its own came. */
  readonly #times = new Map<number, number>();
  /** Ascending points of the monotone curve; null when a knot has changed. */
  #points: Points | null = null;

  /** Whether passes of about so many rows were measured often enough to tell from another one how fast the machine is now. */
  settled(rows: number): boolean {
    return this.#around(rows).every(({ rows, share }) => share < 0.25 || (this.#byRows.get(rows)?.count ?? 0) >= SETTLED);
  }

  /** Measurements, of late, of about so many rows. */
  evidence(rows: number): number {
    const counts = this.#around(rows).map(({ rows, share }) => share * (this.#byRows.get(rows)?.count ?? 0));
    return Math.min(
      1 / MIN_WEIGHT,
      counts.reduce((sum, count) => sum + count, 0),
    );
  }

  /** Learns that `rows` rows took exp(`logSeconds`). `weight` up to 1: how much of the measurement was this pass. */
  learn(rows: number, logSeconds: number, weight = 1): void {
    this.#countTimes(rows);
    const isKnown = ({ numExact }: Knot) => numExact >= SETTLED;
    let knots = this.#around(rows).map(({ rows, share }) => ({ knot: this.#knotAt(rows, logSeconds), share }));
    // What one row more costs lies between them, and is no reason to think otherwise of what is known exactly.
    if (rows <= MOST_EXACT_ROWS && knots.every(({ knot }) => isKnown(knot))) knots = [{ knot: this.#knotAt(rows, logSeconds), share: 1 }];
    const estimate = knots.reduce((sum, { knot, share }) => sum + share * Math.exp(knot.logSeconds), 0);
    const residual = logSeconds - Math.log(estimate);
    for (const { knot, share } of knots) {
      if (share === 1) knot.numExact += weight;
      if (share === 1 || !isKnown(knot)) learnKnot(knot, residual, weight * share);
    }
    this.#points = null;
  }

  /** A number of rows that has come often becomes a knot that begins where its neighbours have it. */
  #countTimes(rows: number): void {
    if (rows > MOST_EXACT_ROWS || this.#byRows.has(rows)) return;
    const times = (this.#times.get(rows) ?? 0) + 1;
    this.#times.set(rows, times);
    const seconds = this.seconds(rows);
    if (times > SETTLED && seconds !== null) this.#knotAt(rows, Math.log(seconds)).count = SETTLED + 1;
  }

  /** The knot, if need be a new one on the curve, or at `logSeconds` where there is none. */
  #knotAt(rows: number, logSeconds: number): Knot {
    const known = this.#byRows.get(rows);
    if (known !== undefined) return known;
    const seconds = this.seconds(rows);
    const knot = { rows, logSeconds: seconds === null ? logSeconds : Math.log(seconds), count: 0, numExact: 0, first: [] };
    this.#byRows.set(rows, knot);
    this.#knots.push(knot);
    this.#knots.sort((a, b) => a.rows - b.rows);
    return knot;
  }

  /** The knots that a number of rows lies on or between, with their shares in it. */
  #around(rows: number): { rows: number; share: number }[] {
    let [low, high] = fixedRowsAround(rows);
    for (const knot of this.#knots) {
      if (knot.rows <= rows) low = Math.max(low, knot.rows);
      if (knot.rows >= rows) high = Math.min(high, knot.rows);
    }
    if (low >= high) return [{ rows, share: 1 }];
    const share = (rows - low) / (high - low);
    return [
      { rows: low, share: 1 - share },
      { rows: high, share },
    ];
  }

  /** Seconds of a pass over `rows` rows; null while nothing was measured. Above all that was measured it goes on as a line, from a single point in proportion. */
  seconds(rows: number): number | null {
    this.#points ??= this.#monotonePoints();
    const { rows: xs, seconds: ys } = this.#points;
    const last = xs.length - 1;
    if (last < 0) return null;
    if (rows <= (xs[0] as number)) return ys[0] as number;
    if (rows >= (xs[last] as number)) return (ys[last] as number) + lastSlope(xs, ys) * (rows - (xs[last] as number));
    let low = 0;
    let high = last;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((xs[middle] as number) <= rows) low = middle;
      else high = middle;
    }
    const x0 = xs[low] as number;
    const y0 = ys[low] as number;
    return y0 + (((ys[high] as number) - y0) * (rows - x0)) / ((xs[high] as number) - x0);
  }

  /** Isotonic regression (pool adjacent violators); knots that were pooled keep their place and share their seconds. */
  #monotonePoints(): Points {
    const numKnots = this.#knots.length;
    const rows = new Float64Array(numKnots);
    const seconds = new Float64Array(numKnots);
    // Of each pool so far: the end of its knots, and their weight and weighted mean.
    const ends: number[] = [];
    const weights: number[] = [];
    const means: number[] = [];
    for (const [i, knot] of this.#knots.entries()) {
      rows[i] = knot.rows;
      let weight = Math.min(knot.count + 1e-3, 1 / MIN_WEIGHT);
      let mean = knot.logSeconds;
      while (means.length > 0 && (means.at(-1) as number) > mean) {
        const [lowerWeight, lowerMean] = [weights.pop() as number, means.pop() as number];
        ends.pop();
        mean = (lowerWeight * lowerMean + weight * mean) / (lowerWeight + weight);
        weight += lowerWeight;
      }
      ends.push(i + 1);
      weights.push(weight);
      means.push(mean);
    }
    for (let pool = 0, i = 0; pool < ends.length; pool++) {
      const value = Math.exp(means[pool] as number);
      while (i < (ends[pool] as number)) seconds[i++] = value;
    }
    return { rows, seconds };
  }
}

/** Seconds per row beyond the last point: from the last one at or below half its rows, for neighbours are too close together to tell. */
function lastSlope(xs: Float64Array, ys: Float64Array): number {
  const last = xs.length - 1;
  const [x, y] = [xs[last], ys[last]] as [number, number];
  if (last === 0) return y / x;
  let from = last - 1;
  while (from > 0 && (xs[from] as number) > x / 2) from--;
  return (y - (ys[from] as number)) / (x - (xs[from] as number));
}

/** The median of a knot's first measurements, so that one that was held up does not matter; from there a running mean. */
function learnKnot(knot: Knot, residual: number, weight: number): void {
  knot.count += weight;
  if (weight < 0.5 || knot.count > SETTLED + 1) {
    knot.logSeconds += weight * Math.max(1 / knot.count, MIN_WEIGHT) * clipResidual(residual);
    return;
  }
  knot.first.push(knot.logSeconds + residual);
  const sorted = [...knot.first].sort((a, b) => a - b);
  knot.logSeconds = ((sorted[(sorted.length - 1) >> 1] as number) + (sorted[sorted.length >> 1] as number)) / 2;
}

/** The next of 1, 2, … 9, 12, 16, 24, 32, 48, … at or below a number of rows, and at or above it. */
function fixedRowsAround(rows: number): [number, number] {
  if (rows <= 9) return [rows, rows];
  const octave = 8 * 2 ** Math.floor(Math.log2(rows / 8));
  const low = rows >= 1.5 * octave ? 1.5 * octave : octave;
  if (low === rows) return [rows, rows];
  // Between 8 and 12, 9 is one of them.
  return low === 8 ? [9, 12] : [low, low === octave ? 1.5 * octave : 2 * octave];
}
