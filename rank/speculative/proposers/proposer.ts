/** Drafting of tokens for a sequence from its text alone. */

/** Proposed tokens and their confidences. */
export interface Offer {
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]` estimated probability that this token is right given that those before it were, in (0, 1]. */
  readonly confidences: readonly number[];
}

/** Drafts for one sequence from its text alone. */
export interface Proposer {
  /**
   * At most `most` tokens that may follow `tokenIds` (prompt and output so far; append-only between calls). Empty when
   * `most` is 0.
   */
  propose(tokenIds: readonly number[], most: number): Offer;
}

/** Offers nothing. */
export const noOffer: Offer = { tokenIds: [], confidences: [] };
