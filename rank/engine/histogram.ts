/** Counts values in buckets whose bounds grow by a fixed factor. */

/** A histogram as plain data. */
export interface HistogramSnapshot {
  readonly count: number;
  readonly sum: number;
  /** Null while nothing was counted. */
  readonly min: number | null;
  readonly max: number | null;
  /** Ascending upper bounds, each part of its bucket. */
  readonly bounds: readonly number[];
  /** `[bounds.length + 1]` values in each bucket; the last has those above all bounds. */
  readonly counts: readonly number[];
}

/** `count` bounds from `first` on, each `factor` times the one before. */
export function exponentialBounds(first: number, factor: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => first * factor ** i);
}

/** From a microsecond to some fifteen minutes; a quantile is off by half its value at most. */
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

  /** Counts a value. */
  observe(value: number): void {
    const bucket = bucketOf(this.#bounds, value);
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#count++;
    this.#sum += value;
    this.#min = Math.min(this.#min, value);
    this.#max = Math.max(this.#max, value);
    this.#snapshot = null;
  }

  /** What was counted so far. The same object as long as nothing is added, so that asking often costs nothing. */
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

/** First bucket whose bound is not below the value. */
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

/** A value that the share `q` of all values does not exceed, by linear interpolation in its bucket; null while there are none. */
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
