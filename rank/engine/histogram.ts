/** Histograms, by default with exponential bucket bounds, and their quantiles. */

/** A histogram as plain data. */
export interface HistogramSnapshot {
  readonly count: number;
  readonly sum: number;
  /** Null while empty. */
  readonly min: number | null;
  readonly max: number | null;
  /** Ascending upper bounds, inclusive. */
  readonly bounds: readonly number[];
  /** `[bounds.length + 1]` values per bucket; the last bucket is unbounded. */
  readonly counts: readonly number[];
}

/** `count` bounds from `first`, each `factor` times the previous. */
export function exponentialBounds(first: number, factor: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => first * factor ** i);
}

/** From 1 µs to about 15 minutes; a quantile's error is at most half its value. */
export const secondsBounds = exponentialBounds(1e-6, 1.5, 52);

export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #count = 0;
  #sum = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;
  #snapshot: HistogramSnapshot | null = null;

  constructor(bounds: readonly number[] = secondsBounds) {
    this.#bounds = bounds;
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  observe(value: number): void {
    const bucket = bucketOf(this.#bounds, value);
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#count++;
    this.#sum += value;
    this.#min = Math.min(this.#min, value);
    this.#max = Math.max(this.#max, value);
    this.#snapshot = null;
  }

  /** Cached until the next `observe`, so that frequent reads are free. */
  get snapshot(): HistogramSnapshot {
    this.#snapshot ??= {
      count: this.#count,
      sum: this.#sum,
      min: this.#count === 0 ? null : this.#min,
      max: this.#count === 0 ? null : this.#max,
      bounds: this.#bounds,
      counts: this.#counts.slice(),
    };
    return this.#snapshot;
  }
}

/** Index of the first bucket whose bound is at least the value. */
function bucketOf(bounds: readonly number[], value: number): number {
  let low = 0;
  let high = bounds.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((bounds[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The `q`-quantile, `q` in [0, 1], by linear interpolation within its bucket; null while empty. */
export function quantile({ count, min, max, bounds, counts }: HistogramSnapshot, q: number): number | null {
  if (min === null || max === null) return null;
  const target = q * count;
  let before = 0;
  for (const [i, inBucket] of counts.entries()) {
    if (inBucket > 0 && before + inBucket >= target) {
      const low = Math.max(min, bounds[i - 1] ?? min);
      const high = Math.min(max, bounds[i] ?? max);
      return low + (high - low) * Math.max(0, (target - before) / inBucket);
    }
    before += inBucket;
  }
  return max;
}
