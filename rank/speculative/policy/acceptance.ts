/** Acceptance probability of drafts: discounted counts per position, of each request and of all requests. */
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

/** Acceptance probability of one request's drafts. */
export interface Acceptance {
  /** Whether it learns from trials, so that exploration pays. */
  readonly learns: boolean;
  /** `[most + 1]` probability that drafts 1 … i are all accepted, 1 for i = 0; never grows in i. */
  survivals(most: number): ArrayLike<number>;
  /** Observes a step with `numDrafted` drafts, the first `numAccepted` of them accepted; 0 and 0 without drafts. */
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

  /** Discounts the counts of positions from `first` on. */
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

/** Acceptance over all requests of a method, the prior of a new one. */
export class SharedAcceptance {
  /** Max drafts of a step. */
  readonly most: number;
  readonly #counts: TrialCounts;

  constructor(most: number) {
    this.most = most;
    this.#counts = new TrialCounts(most);
  }

  observe(numDrafted: number, numAccepted: number): void {
    this.#counts.add(numDrafted, numAccepted, SHARED_DISCOUNT);
  }

  /** Discounts all counts by one step. */
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

  /** Positions that were not drafted fade towards the prior. */
  observe(numDrafted: number, numAccepted: number): void {
    this.#counts.add(numDrafted, numAccepted, OWN_DISCOUNT);
    this.#counts.fade(numDrafted + 1, OWN_FADE);
    if (numDrafted > 0) this.#shared.observe(numDrafted, numAccepted);
  }

  /** A position's prior is the shared rate plus the difference at the position before it. */
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
