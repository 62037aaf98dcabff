/** Confidences of proposers, summed from all observations on every call. */

interface Observation {
  share: number;
  isHit: boolean;
}

/** Lower bounds of the groups of match lengths. */
const groups = [1, 2, 4, 8, 16, 32];

/**
 * Confidence = share of occurrences · hits ÷ expected hits. The k-th latest observation weighs (63/64)^k, and a prior
 * of weight 4 precedes the first.
 */
export class HitRateReference {
  readonly #observations = groups.map((): Observation[] => []);

  observe(matchLength: number, share: number, isHit: boolean): void {
    this.#observations[this.#groupOf(matchLength)]?.push({ share, isHit });
  }

  confidence(matchLength: number, share: number): number {
    const group = this.#groupOf(matchLength);
    const observations = this.#observations[group] ?? [];
    const weight = (index: number): number => (63 / 64) ** (observations.length - 1 - index);
    const believed = 4 * weight(-1);
    const start = groups[group] ?? 1;
    const hits = observations.reduce((sum, { isHit }, i) => sum + (isHit ? weight(i) : 0), (believed * start) / (start + 1));
    const expected = observations.reduce((sum, observation, i) => sum + observation.share * weight(i), believed);
    return Math.max(0.01, Math.min(1, (share * hits) / expected));
  }

  #groupOf(matchLength: number): number {
    return groups.filter((start) => start <= matchLength).length - 1;
  }
}
