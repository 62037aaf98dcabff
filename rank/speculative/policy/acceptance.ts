/** How likely drafts are to be accepted: discounted counts per position, of each request and of all requests together. */

/** Assumed of a method that nothing is known of yet, and of a position as of the one before it. */
const PRIOR_RATE = 0.6;
/** Trials that what was assumed before counts for: of the method, and of a request that begins with what others had. */
const SHARED_STRENGTH = 4;
const OWN_STRENGTH = 3;
/** Weight of earlier trials of a position after another one: the last 200 and the last 20 count, roughly. */
const SHARED_DISCOUNT = 0.995;
const OWN_DISCOUNT = 0.95;
/** Weight of a request's earlier trials of a position after a step that did not draft that far: texts change. */
const FADE = 0.98;

/** A draft's conditional acceptance stays inside (0, 1), so that no position looks hopeless or certain for good. */
const clampRate = (rate: number) => Math.min(0.98, Math.max(0.005, rate));

/** What all requests of one method had, from which a new one begins. Position 1 is the first draft of a step. */
export class SharedAcceptance {
  readonly #tried: Float64Array;
  readonly #accepted: Float64Array;
  readonly #rates: Float64Array;
  #version = 0;

  /** `most`: drafts of a step at most. */
  constructor(most: number) {
    this.#tried = new Float64Array(most + 1);
    this.#accepted = new Float64Array(most + 1);
    this.#rates = new Float64Array(most + 1).fill(PRIOR_RATE);
  }

  get most(): number {
    return this.#rates.length - 1;
  }

  /** Grows with every observation. */
  get version(): number {
    return this.#version;
  }

  /** Probability that draft `i` (from 1) is accepted when all before it are. */
  rate(i: number): number {
    return this.#rates[i] as number;
  }

  /** Of `numDrafted` drafts, the first `numAccepted` were accepted. */
  observe(numDrafted: number, numAccepted: number): void {
    countTrials(this.#tried, this.#accepted, numDrafted, numAccepted, SHARED_DISCOUNT);
    let before = PRIOR_RATE;
    for (let i = 1; i <= this.most; i++) {
      before = ((this.#accepted[i] as number) + SHARED_STRENGTH * before) / ((this.#tried[i] as number) + SHARED_STRENGTH);
      this.#rates[i] = before;
    }
    this.#version++;
  }
}

/** How likely the drafts of one request are to stay. */
export interface Acceptance {
  /** Probability that drafts 1 … `i` are all accepted; 1 for none. */
  survival(i: number): number;
  /** Discounted number of trials of position `i`. */
  evidence(i: number): number;
  /** A step had `numDrafted` drafts, of which the first `numAccepted` were accepted. */
  observe(numDrafted: number, numAccepted: number): void;
}

/** Acceptance of one request's drafts by one method. */
export class AcceptanceEstimate implements Acceptance {
  readonly #shared: SharedAcceptance;
  readonly #tried: Float64Array;
  readonly #accepted: Float64Array;
  readonly #survival: Float64Array;
  #version = -1;

  constructor(shared: SharedAcceptance) {
    this.#shared = shared;
    this.#tried = new Float64Array(shared.most + 1);
    this.#accepted = new Float64Array(shared.most + 1);
    this.#survival = new Float64Array(shared.most + 1);
  }

  /**
   * A step had `numDrafted` drafts, of which the first `numAccepted` were accepted; 0 and 0 for a step without drafts.
   * Position i counts as tried only where 1 … i - 1 were accepted. Positions that were not drafted fade towards what is known of others.
   */
  observe(numDrafted: number, numAccepted: number): void {
    countTrials(this.#tried, this.#accepted, numDrafted, numAccepted, OWN_DISCOUNT);
    for (let i = numDrafted + 1; i < this.#tried.length; i++) {
      this.#tried[i] = FADE * (this.#tried[i] as number);
      this.#accepted[i] = FADE * (this.#accepted[i] as number);
    }
    if (numDrafted > 0) this.#shared.observe(numDrafted, numAccepted);
    this.#version = -1;
  }

  /** Probability that drafts 1 … `i` are all accepted; 1 for none. */
  survival(i: number): number {
    if (this.#version !== this.#shared.version) this.#refresh();
    return this.#survival[i] as number;
  }

  /** Discounted number of trials of position `i`. */
  evidence(i: number): number {
    return this.#tried[i] as number;
  }

  /** A position is assumed to be better or worse than others' by as much as the one before it. */
  #refresh(): void {
    let survival = 1;
    let ahead = 0;
    this.#survival[0] = 1;
    for (let i = 1; i < this.#survival.length; i++) {
      const shared = this.#shared.rate(i);
      const prior = clampRate(shared + ahead);
      const rate = ((this.#accepted[i] as number) + OWN_STRENGTH * prior) / ((this.#tried[i] as number) + OWN_STRENGTH);
      ahead = rate - shared;
      survival *= rate;
      this.#survival[i] = survival;
    }
    this.#version = this.#shared.version;
  }
}

function countTrials(tried: Float64Array, accepted: Float64Array, numDrafted: number, numAccepted: number, discount: number): void {
  const last = Math.min(numDrafted, numAccepted + 1);
  for (let i = 1; i <= last; i++) {
    tried[i] = discount * (tried[i] as number) + 1;
    accepted[i] = discount * (accepted[i] as number) + (i <= numAccepted ? 1 : 0);
  }
}
