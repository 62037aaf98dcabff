/** How often a proposer's predictions come true, by the length of the match that they rest on. */

/** Match lengths 1, 2–3, 4–7, 8–15, 16–31, and 32 or more. */
const numBuckets = 6;
/** Observations that what is believed at first counts for. */
const priorWeight = 4;
/** An observation's weight falls by this factor with each later one of its bucket: the last 64 or so decide. */
const discount = 1 - 1 / 64;
/** A confidence is never 0: what has failed so far may come. */
const leastConfidence = 0.01;

function bucketOf(matchLength: number): number {
  return Math.min(31 - Math.clz32(matchLength), numBuckets - 1);
}

/**
 * Turns a share of occurrences into a confidence. One earlier occurrence says little after one token in common and nearly
 * everything after twenty, and how much differs between texts: so every token of a text is predicted from those before it,
 * and a confidence is the share times hits ÷ expected hits of matches about as long.
 */
export class HitRates {
  readonly #expected = new Float64Array(numBuckets).fill(priorWeight);
  /** At first, length ÷ (length + 1) of the predictions from a match come true. */
  readonly #hits = Float64Array.from({ length: numBuckets }, (_, bucket) => priorWeight * (1 - 1 / (2 ** bucket + 1)));

  /** Takes in whether the token came that a match of `matchLength` ≥ 1 tokens predicted with probability `share`. */
  observe(matchLength: number, share: number, isHit: boolean): void {
    const bucket = bucketOf(matchLength);
    this.#expected[bucket] = (this.#expected[bucket] ?? 0) * discount + share;
    this.#hits[bucket] = (this.#hits[bucket] ?? 0) * discount + (isHit ? 1 : 0);
  }

  /** Probability, in (0, 1], that a token is right which follows a match of `matchLength` ≥ 1 tokens in `share` of its occurrences. */
  confidence(matchLength: number, share: number): number {
    const bucket = bucketOf(matchLength);
    const scale = (this.#hits[bucket] ?? 0) / (this.#expected[bucket] ?? 1);
    return Math.max(leastConfidence, Math.min(1, share * scale));
  }
}
