/** How likely drafts are to be accepted: discounted counts per position, of each request and of all requests together. */
import {
  LEAST_RATE,
  MOST_RATE,
  OWN_DISCOUNT,
  OWN_FADE,
  OWN_STRENGTH,
  PRIOR_RATE,
  SHARED_DISCOUNT,
  SHARED_FADE,
  SHARED_STRENGTH,
} from './constants.ts';

/** How likely the drafts of one request are to be accepted. */
export interface Acceptance {
  /** Whether trials teach it anything, so that exploring pays. */
  readonly learns: boolean;
  /** `[most + 1]` probability that drafts 1 … i are all accepted, 1 for i = 0; never grows in i. */
  survivals(most: number): ArrayLike<number>;
  /** A step had `numDrafted` drafts, of which the first `numAccepted` were accepted; 0 and 0 for a step without drafts. */
  observe(numDrafted: number, numAccepted: number): void;
}

/** Trials and successes of each position, from 1. Position i counts as tried only where 1 … i - 1 were accepted. */
class TrialCounts {
  readonly #tried: Float64Array;
  readonly #accepted: Float64Array;

  constructor(most: number) {
    this.#tried = new Float64Array(most + 1);
    this.#accepted = new Float64Array(most + 1);
  }

  add(numDrafted: number, numAccepted: number, discount: number): void {
    const last = Math.min(numDrafted, numAccepted + 1);
    for (let i = 1; i <= last; i++) {
      this.#tried[i] = discount * (this.#tried[i] as number) + 1;
      this.#accepted[i] = discount * (this.#accepted[i] as number) + (i <= numAccepted ? 1 : 0);
    }
  }

  /** Discounts what positions from `first` on have seen. */
  fade(first: number, factor: number): void {
    for (let i = first; i < this.#tried.length; i++) {
      this.#tried[i] = factor * (this.#tried[i] as number);
      this.#accepted[i] = factor * (this.#accepted[i] as number);
    }
  }

  /** Posterior mean, with `strength` pseudo-trials of the prior. */
  rate(i: number, prior: number, strength: number): number {
    return ((this.#accepted[i] as number) + strength * prior) / ((this.#tried[i] as number) + strength);
  }
}

/** What all requests of one method had, the prior of a new one. */
export class SharedAcceptance {
  /** Drafts of a step at most. */
  readonly most: number;
  readonly #counts: TrialCounts;

  constructor(most: number) {
    this.most = most;
    this.#counts = new TrialCounts(most);
  }

  observe(numDrafted: number, numAccepted: number): void {
    this.#counts.add(numDrafted, numAccepted, SHARED_DISCOUNT);
  }

  /** A step is over. */
  fade(): void {
    this.#counts.fade(1, SHARED_FADE);
  }

  /** `[most + 1]` probability that draft i is accepted when all before it are; a position's prior is the one before it. */
  rates(): Float64Array {
    const rates = new Float64Array(this.most + 1).fill(PRIOR_RATE);
    for (let i = 1; i <= this.most; i++) rates[i] = this.#counts.rate(i, rates[i - 1] as number, SHARED_STRENGTH);
    return rates;
  }
}

/** Acceptance of one request's drafts by one method. */
export class AcceptanceEstimate implements Acceptance {
  readonly learns = true;
  readonly #shared: SharedAcceptance;
  readonly #counts: TrialCounts;

  constructor(shared: SharedAcceptance) {
    this.#shared = shared;
    this.#counts = new TrialCounts(shared.most);
  }

  /** Positions that were not drafted fade towards what is known of others. */
  observe(numDrafted: number, numAccepted: number): void {
    this.#counts.add(numDrafted, numAccepted, OWN_DISCOUNT);
    this.#counts.fade(numDrafted + 1, OWN_FADE);
    if (numDrafted > 0) this.#shared.observe(numDrafted, numAccepted);
  }

  /** A position's prior is the shared rate, off by as much as the position before it. */
  survivals(): Float64Array {
    const survivals = this.#shared.rates();
    let survival = 1;
    let ahead = 0;
    survivals[0] = 1;
    for (let i = 1; i < survivals.length; i++) {
      const shared = survivals[i] as number;
      const prior = Math.min(MOST_RATE, Math.max(LEAST_RATE, shared + ahead));
      const rate = this.#counts.rate(i, prior, OWN_STRENGTH);
      ahead = rate - shared;
      survival *= rate;
      survivals[i] = survival;
    }
    return survivals;
  }
}
