/** Hit rate of a proposer's predictions, by match length. */

/** Match lengths 1, 2–3, 4–7, 8–15, 16–31, and 32 or more. */
const numBuckets = 6;
/** Prior strength, in expected hits. */
const priorWeight = 4;
/** Discount of older observations with each new one of the bucket: memory of 64 observations. */
const discount = 1 - 1 / 64;
/** Min confidence, above 0: a prediction that never hit so far still may. */
const leastConfidence = 0.01;

function bucketOf(matchLength: number): number {
  return Math.min(31 - Math.clz32(matchLength), numBuckets - 1);
}

/**
 * Calibrates a share of occurrences to a confidence: share · hits ÷ expected hits, over matches of similar length. The
 * rates are learned online, by predicting each token of the text, since the value of a match grows with its length and
 * differs between texts.
 */
export class HitRates {
  readonly #expected = new Float64Array(numBuckets).fill(priorWeight);
  /** Prior hit rate: length ÷ (length + 1). */
  readonly #hits = Float64Array.from({ length: numBuckets }, (_, bucket) => priorWeight * (1 - 1 / (2 ** bucket + 1)));

  /** Observes whether a prediction of probability `share`, from a match of `matchLength` ≥ 1 tokens, was right. */
  observe(matchLength: number, share: number, isHit: boolean): void {
    const bucket = bucketOf(matchLength);
    this.#expected[bucket] = (this.#expected[bucket] ?? 0) * discount + share;
    this.#hits[bucket] = (this.#hits[bucket] ?? 0) * discount + (isHit ? 1 : 0);
  }

  /** Probability, in (0, 1], of a token that follows a match of `matchLength` ≥ 1 tokens in `share` of its places. */
  confidence(matchLength: number, share: number): number {
    const bucket = bucketOf(matchLength);
    const scale = (this.#hits[bucket] ?? 0) / (this.#expected[bucket] ?? 1);
    return Math.max(leastConfidence, Math.min(1, share * scale));
  }
}
