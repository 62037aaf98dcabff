/** What speculation may lose: the seconds that probes may cost, and a brake for when estimates are wrong. */

/** Share of the seconds of decoding that probes may cost where nothing they try is accepted. */
const PROBE_SHARE = 0.01;
/** Failed probes in a row make the next ones rarer, by this factor each and this one at most. */
const BACK_OFF = 1.25;
const MAX_BACK_OFF = 4;
/** Share of the seconds that speculation as a whole may lose, probes included. */
const LOSS_SHARE = 0.015;
/** Plain steps that it may lose besides: to learn, and by bad luck, which evens out the more sequences there are. */
const lossSteps = (numSequences: number) => 16 / Math.sqrt(numSequences);

/** Saves up for one probe at a time. */
export class ProbeBudget {
  #saved = 0;
  #backOff = 1;

  /** A step of so many seconds was planned. */
  accrue(seconds: number): void {
    this.#saved += PROBE_SHARE * seconds;
  }

  /**
   * Spends `seconds` on a probe, `catchUpSeconds` of them on a draft that fell behind, if there is enough. What is saved beyond that is given up: an hour without need of
   * a probe does not pay for a thousand. A failed one before does not put off the catch-up's part, which would only grow meanwhile.
   */
  take(seconds: number, catchUpSeconds: number): boolean {
    if (this.#saved < catchUpSeconds + this.#backOff * (seconds - catchUpSeconds)) return false;
    this.#saved = 0;
    return true;
  }

  /** A probe is back. One whose draft was accepted has earned `refundSeconds` of what it cost, and the next may follow as soon as they suffice. */
  settle(accepted: boolean, refundSeconds: number): void {
    this.#backOff = accepted ? 1 : Math.min(MAX_BACK_OFF, BACK_OFF * this.#backOff);
    if (accepted) this.#saved += refundSeconds;
  }
}

/** Compares what steps brought with what plain ones would have, whatever was estimated of acceptance. */
export class LossBudget {
  #seconds = Number.NaN;

  /** Whether speculation may go on. */
  get isOpen(): boolean {
    return !(this.#seconds < 0);
  }

  /** A step took `seconds` and brought `numTokens` tokens for `numSequences` sequences; a plain one would have taken `plainSeconds`. */
  settle(seconds: number, numTokens: number, plainSeconds: number, numSequences: number): void {
    const most = lossSteps(numSequences) * plainSeconds;
    if (Number.isNaN(this.#seconds)) this.#seconds = most;
    this.#seconds = Math.min(most, this.#seconds + LOSS_SHARE * seconds + (plainSeconds * numTokens) / numSequences - seconds);
  }
}

/** Share of the seconds that variations may cost, by the estimates; and steps between two at least. */
const VARIATION_SHARE = 0.005;
const VARY_EVERY = 16;

/** Pays for steps that take another number of drafts than seems best, so that what those cost is measured as well. */
export class VariationBudget {
  #saved = 0;
  #steps = 0;

  accrue(seconds: number, numSteps: number): void {
    this.#saved += VARIATION_SHARE * seconds;
    this.#steps += numSteps;
  }

  /** Spends `seconds`, which another plan loses against the best, if there is enough. What is saved beyond that is given up. */
  take(seconds: number): boolean {
    if (this.#steps < VARY_EVERY || this.#saved < seconds) return false;
    this.#saved = 0;
    this.#steps = 0;
    return true;
  }
}
