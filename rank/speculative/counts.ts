/** Counts of drafted and accepted tokens. */

/** Running totals, with vLLM's names. */
export interface SpeculationStats {
  /** Steps with drafts, counted per sequence. */
  readonly numDrafts: number;
  /** Tokens drafted, and those accepted. */
  readonly numDraftTokens: number;
  readonly numAcceptedTokens: number;
  /** Accepted drafts by position, up to the last that was ever drafted. */
  readonly numAcceptedTokensPerPos: readonly number[];
  /** Steps of a decoding sequence by their number of drafts, from 0. */
  readonly numStepsByNumDrafts: readonly number[];
  /** Mean tokens per step with drafts, the step's own included; 0 without such steps. */
  readonly meanAcceptanceLength: number;
  /** Seconds of steps with decoding sequences in both models, predicted and measured; 0 without `adaptiveK`. */
  readonly predictedSeconds: number;
  readonly measuredSeconds: number;
}

export class SpeculationCounts {
  readonly #acceptedPerPos: number[] = [];
  readonly #stepsByNumDrafts: number[] = [];
  #predictedSeconds = 0;
  #measuredSeconds = 0;

  /** Counts one step of a decoding sequence. */
  add(numDrafts: number, numAccepted: number): void {
    while (this.#stepsByNumDrafts.length <= numDrafts) this.#stepsByNumDrafts.push(0);
    while (this.#acceptedPerPos.length < numDrafts) this.#acceptedPerPos.push(0);
    (this.#stepsByNumDrafts[numDrafts] as number)++;
    for (let i = 0; i < numAccepted; i++) (this.#acceptedPerPos[i] as number)++;
  }

  /** Adds one step's seconds. */
  addSeconds(predicted: number, measured: number): void {
    this.#predictedSeconds += predicted;
    this.#measuredSeconds += measured;
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
      predictedSeconds: this.#predictedSeconds,
      measuredSeconds: this.#measuredSeconds,
    };
  }
}
