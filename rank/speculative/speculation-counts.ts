/** What became of drafts, in numbers. */

/** Running totals, with vLLM's names. */
export interface SpeculationStats {
  /** Steps with drafts, each sequence's for itself. */
  readonly numDrafts: number;
  /** Tokens drafted, and those of them that stayed. */
  readonly numDraftTokens: number;
  readonly numAcceptedTokens: number;
  /** `[numSpeculativeTokens]` how often the draft at each position stayed. */
  readonly numAcceptedTokensPerPos: readonly number[];
  /** `[numSpeculativeTokens + 1]` how many steps of a decoding sequence drafted so many tokens. */
  readonly numStepsByNumDrafts: readonly number[];
  /** Tokens that a step with drafts brings, one of its own included; 0 without such steps. */
  readonly meanAcceptanceLength: number;
}

export class SpeculationCounts {
  readonly #acceptedPerPos: number[];
  readonly #stepsByNumDrafts: number[];

  /** @param most - drafts of a step */
  constructor(most: number) {
    this.#acceptedPerPos = new Array<number>(most).fill(0);
    this.#stepsByNumDrafts = new Array<number>(most + 1).fill(0);
  }

  /** A step of a decoding sequence drafted so many tokens, of which so many stayed. */
  add(numDrafts: number, numAccepted: number): void {
    this.#stepsByNumDrafts[numDrafts] = (this.#stepsByNumDrafts[numDrafts] ?? 0) + 1;
    for (let i = 0; i < numAccepted; i++) this.#acceptedPerPos[i] = (this.#acceptedPerPos[i] ?? 0) + 1;
  }

  get snapshot(): SpeculationStats {
    const byNumDrafts = [...this.#stepsByNumDrafts];
    const numDrafts = byNumDrafts.slice(1).reduce((a, b) => a + b, 0);
    const numAcceptedTokens = this.#acceptedPerPos.reduce((a, b) => a + b, 0);
    return {
      numDrafts,
      numDraftTokens: byNumDrafts.reduce((sum, count, k) => sum + count * k, 0),
      numAcceptedTokens,
      numAcceptedTokensPerPos: [...this.#acceptedPerPos],
      numStepsByNumDrafts: byNumDrafts,
      meanAcceptanceLength: numDrafts === 0 ? 0 : 1 + numAcceptedTokens / numDrafts,
    };
  }
}
