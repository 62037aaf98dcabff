/** What drafts tokens for a sequence from its text alone. */

/** Tokens that may come next, and how sure the proposer is of each. */
export interface Offer {
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]` estimated probability that this token is right given that those before it were, in (0, 1]. */
  readonly confidences: readonly number[];
}

/** Drafts for one sequence from its text alone. */
export interface Proposer {
  /**
   * Up to `most` tokens that may follow `tokenIds` (prompt and output so far; between calls it only grows at its end).
   * Nothing is ever offered when `most` is 0.
   */
  propose(tokenIds: readonly number[], most: number): Offer;
}

/** Offers nothing. */
export const noOffer: Offer = { tokenIds: [], confidences: [] };
