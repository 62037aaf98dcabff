/** Drafts by prompt lookup: the tokens that followed an earlier occurrence of the text's last n-gram. */
import { HitRates } from './hit-rates.ts';
import { noOffer, type Offer, type Proposer } from './proposer.ts';

/** Lengths of the n-grams that are looked up. */
export interface NgramOptions {
  /** Min n-gram length, in tokens. Default 2, or `promptLookupMax` if that is less. */
  readonly promptLookupMin: number;
  /** Max n-gram length, in tokens, up to 1000. Default 5, or `promptLookupMin` if that is more. */
  readonly promptLookupMax: number;
}

/** Max n-gram length. Bounds the work per token, and keeps entries of texts of two million tokens in 31 bits. */
export const longestNgram = 1000;

/** Random per process, so that no text can be chosen whose n-grams all share a slot. Never changes an offer. */
const hashSeed = Math.floor(Math.random() * 2 ** 32);

function extendHash(hash: number, tokenId: number): number {
  const mixed = Math.imul(hash ^ tokenId, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

/**
 * Prompt lookup (Saxena 2023; vLLM's method `ngram`), one visit per token: a table holds each n-gram's last end.
 *
 * Occurrence of the longest n-gram: the one being followed, as long as it predicts every token, else the latest. Mean
 * tokens accepted per call, 8 offered, n-grams of 2 to 5 (a source file with edits / new source code / JSON /
 * a licence): the earliest, which vLLM takes, 6.17 / 0.31 / 0.84 / 0.09; the latest 5.84 / 0.34 / 0.92 / 0.10; the latest of
 * those with the most frequent next token 5.84 / 0.34 / 0.91 / 0.11; this rule 6.49 / 0.34 / 0.92 / 0.10.
 *
 * Memory: 8 to 16 bytes per token and n-gram length.
 */
export class NgramProposer implements Proposer {
  readonly #min: number;
  readonly #max: number;
  readonly #rates = new HitRates();
  /** Open addressing, at most half full: 0 = free, else 1 + (n - min) + (position of an n-gram's last token) * #numLengths. */
  #slots = new Int32Array(256);
  #numUsed = 0;
  #numRead = 0;
  /** Last position of the earlier occurrence that equals the text's end; -1 = none. The offer follows it. */
  #source = -1;
  /** Tokens up to and including `#source` that are known to equal the text's end. */
  #matchLength = 0;

  constructor({ promptLookupMin, promptLookupMax }: NgramOptions) {
    this.#min = promptLookupMin;
    this.#max = promptLookupMax;
  }

  /**
   * Offers exactly `most` tokens when an n-gram was found. Past the text's end the offer continues with its own start:
   * a text that repeats what it had `p` tokens earlier has the period `p`.
   */
  propose(tokenIds: readonly number[], most: number): Offer {
    for (; this.#numRead < tokenIds.length; this.#numRead++) this.#read(tokenIds, this.#numRead);
    if (this.#source < 0 || most <= 0) return noOffer;
    const offered: number[] = [];
    const confidences: number[] = [];
    for (let i = 0; i < most; i++) {
      const from = this.#source + 1 + i;
      offered.push((from < tokenIds.length ? tokenIds[from] : offered[from - tokenIds.length]) ?? 0);
      confidences.push(this.#rates.confidence(this.#matchLength + i, 1));
    }
    return { tokenIds: offered, confidences };
  }

  /** Reads the token at `position`: scores the prediction for it and records the n-grams that end with it. */
  #read(tokenIds: readonly number[], position: number): void {
    const isHit = this.#source >= 0 && tokenIds[this.#source + 1] === tokenIds[position];
    if (this.#source >= 0) this.#rates.observe(this.#matchLength, 1, isHit);
    let source = -1;
    let matchLength = 0;
    let hash = hashSeed;
    for (let n = 1; n <= this.#max && n <= position + 1; n++) {
      hash = extendHash(hash, tokenIds[position - n + 1] ?? 0);
      if (n < this.#min) continue;
      const earlier = this.#replace(tokenIds, hash, n, position);
      if (earlier < 0) continue;
      source = earlier;
      matchLength = n;
    }
    this.#source = isHit ? this.#source + 1 : source;
    this.#matchLength = isHit ? this.#matchLength + 1 : matchLength;
  }

  /** Records the n-gram ending at `position`; returns the position of its last earlier end, -1 when it is new. */
  #replace(tokenIds: readonly number[], hash: number, n: number, position: number): number {
    const numLengths = this.#max - this.#min + 1;
    const entry = 1 + (n - this.#min) + position * numLengths;
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (let found = this.#slots[slot] ?? 0; found !== 0; found = this.#slots[slot] ?? 0) {
      const earlier = Math.floor((found - 1) / numLengths);
      if ((found - 1) % numLengths === n - this.#min && isSameNgram(tokenIds, earlier, position, n)) {
        this.#slots[slot] = entry;
        return earlier;
      }
      slot = (slot + 1) & mask;
    }
    this.#slots[slot] = entry;
    if (++this.#numUsed * 2 > this.#slots.length) this.#grow(tokenIds);
    return -1;
  }

  #grow(tokenIds: readonly number[]): void {
    const numLengths = this.#max - this.#min + 1;
    const slots = new Int32Array(this.#slots.length * 2);
    for (const entry of this.#slots) {
      if (entry === 0) continue;
      const n = this.#min + ((entry - 1) % numLengths);
      const position = Math.floor((entry - 1) / numLengths);
      let hash = hashSeed;
      for (let i = 0; i < n; i++) hash = extendHash(hash, tokenIds[position - i] ?? 0);
      let slot = hash & (slots.length - 1);
      while (slots[slot] !== 0) slot = (slot + 1) & (slots.length - 1);
      slots[slot] = entry;
    }
    this.#slots = slots;
  }
}

/** Whether the `n` tokens that end at `a` equal those that end at `b`. */
function isSameNgram(tokenIds: readonly number[], a: number, b: number, n: number): boolean {
  for (let i = 0; i < n; i++) {
    if (tokenIds[a - i] !== tokenIds[b - i]) return false;
  }
  return true;
}
