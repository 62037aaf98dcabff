/** Seconds of a forward pass as a function of its rows, learned from noisy measurements. */

/** Measurements after which a knot counts as known; and the share of a new one in a knot that has many. */
const SETTLED = 8;
const MIN_WEIGHT = 0.01;
/** Largest residual that counts, as a logarithm: a machine is held up at times, by any factor. */
const CLIP = 0.3;

/** A residual as far as it counts. The same for all means that learn from it: otherwise they would drift apart. */
export function clipResidual(residual: number): number {
  return Math.max(-CLIP, Math.min(CLIP, residual));
}

/**
 * A monotone curve, linear between knots at 1, 2, … 9, 12, 16, 24, 32, 48, … rows. Where rows are many, neighbouring numbers of rows share their knots: measured each by
 * itself, what one row more costs would be less than the noise. Logarithms of seconds are at pace 0: how much slower the machine is as a whole is the caller's matter.
 */
export class CostCurve {
  /** `[numKnots]` with gaps. */
  readonly #logSeconds: number[] = [];
  readonly #counts: number[] = [];
  /** Of each knot, what its first measurements would have it be. */
  readonly #first: number[][] = [];
  /** Ascending points of the monotone curve; null when a knot has changed. */
  #points: { rows: number[]; seconds: number[] } | null = null;

  /** Whether passes of about so many rows were measured often enough to tell from another one how fast the machine is now. */
  settled(rows: number): boolean {
    return knotsAround(rows).every(({ knot, share }) => share < 0.25 || (this.#counts[knot] ?? 0) >= SETTLED);
  }

  /** Learns that `rows` rows took exp(`logSeconds`). `weight` up to 1: how much of the measurement was this pass. */
  learn(rows: number, logSeconds: number, weight = 1): void {
    const knots = knotsAround(rows);
    for (const { knot } of knots) {
      if (this.#counts[knot] !== undefined) continue;
      this.#logSeconds[knot] = Math.log(this.seconds(knotRows(knot)) ?? Math.exp(logSeconds));
      this.#counts[knot] = 0;
    }
    const estimate = knots.reduce((sum, { knot, share }) => sum + share * Math.exp(this.#logSeconds[knot] as number), 0);
    const residual = logSeconds - Math.log(estimate);
    for (const { knot, share } of knots) this.#learnKnot(knot, residual, weight * share);
    this.#points = null;
  }

  /** The median of a knot's first measurements, so that one that was held up does not matter; from there a running mean. */
  #learnKnot(knot: number, residual: number, weight: number): void {
    const count = (this.#counts[knot] as number) + weight;
    const before = this.#logSeconds[knot] as number;
    this.#counts[knot] = count;
    if (weight < 0.5 || count > SETTLED + 1) {
      this.#logSeconds[knot] = before + weight * Math.max(1 / count, MIN_WEIGHT) * clipResidual(residual);
      return;
    }
    this.#first[knot] ??= [];
    const first = this.#first[knot];
    first.push(before + residual);
    this.#logSeconds[knot] = median(first);
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
    const [x0, x1, y0, y1] = [xs[low], xs[high], ys[low], ys[high]] as [number, number, number, number];
    return y0 + ((y1 - y0) * (rows - x0)) / (x1 - x0);
  }

  /** Isotonic regression (pool adjacent violators); knots that were pooled keep their place and share their seconds. */
  #monotonePoints(): { rows: number[]; seconds: number[] } {
    const rows: number[] = [];
    const pools: { weight: number; logSeconds: number; size: number }[] = [];
    // forEach skips the gaps.
    this.#logSeconds.forEach((logSeconds, knot) => {
      rows.push(knotRows(knot));
      let pool = { weight: Math.min((this.#counts[knot] as number) + 1e-3, 1 / MIN_WEIGHT), logSeconds, size: 1 };
      for (let top = pools.at(-1); top !== undefined && top.logSeconds > pool.logSeconds; top = pools.at(-1)) {
        const weight = top.weight + pool.weight;
        pool = { weight, logSeconds: (top.weight * top.logSeconds + pool.weight * pool.logSeconds) / weight, size: top.size + pool.size };
        pools.pop();
      }
      pools.push(pool);
    });
    const seconds = pools.flatMap((pool) => new Array<number>(pool.size).fill(Math.exp(pool.logSeconds)));
    return { rows, seconds };
  }
}

/** Seconds per row beyond the last point: from the last one at or below half its rows, for neighbours are too close together to tell. */
function lastSlope(xs: readonly number[], ys: readonly number[]): number {
  const last = xs.length - 1;
  const [x, y] = [xs[last], ys[last]] as [number, number];
  if (last === 0) return y / x;
  let from = last - 1;
  while (from > 0 && (xs[from] as number) > x / 2) from--;
  return (y - (ys[from] as number)) / (x - (xs[from] as number));
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] as number) + (sorted[sorted.length >> 1] as number)) / 2;
}

function knotRows(knot: number): number {
  if (knot < 9) return knot + 1;
  const half = knot - 9;
  return (half % 2 === 0 ? 12 : 16) * 2 ** (half >> 1);
}

/** The knots that a number of rows lies on or between, with their shares in it. */
function knotsAround(rows: number): { knot: number; share: number }[] {
  let knot = rows - 1;
  if (rows >= 9) {
    const octave = Math.floor(Math.log2(rows / 8));
    knot = Math.max(8, 8 + 2 * octave + (rows >= 12 * 2 ** octave ? 1 : 0));
  }
  const share = (rows - knotRows(knot)) / (knotRows(knot + 1) - knotRows(knot));
  return share === 0
    ? [{ knot, share: 1 }]
    : [
        { knot, share: 1 - share },
        { knot: knot + 1, share },
      ];
}
