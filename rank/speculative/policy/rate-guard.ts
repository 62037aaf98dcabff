/** Whether drafting pays at all: by the tokens per second that steps with and without it really brought. */

/** Steps that are decided together, and the seconds that they take at least: single ones are too noisy to compare, and so are a few short ones. */
const WINDOW = 16;
const WINDOW_SECONDS = 0.02;
/** Steps after which a window ends whatever they took: some have seconds that say nothing. */
const MOST_STEPS = 8 * WINDOW;
/** Windows of each kind before they are compared; and the share of earlier windows in what is known. */
const ENOUGH = 2;
const DISCOUNT = 0.9;
/** The same for what was not done lately. */
const TRY_DISCOUNT = 0.3;
/** What drafting has to bring more: what windows differ by chance. */
const MIN_GAIN = 0.06;
/** Windows of plain steps that the estimate of what they bring counts for. */
const ESTIMATE_WINDOWS = 2;
/** How many times what plain decoding brings drafts must promise before any were compared with it: what is known then comes from steps without requests. */
const UNPROVEN_GAIN = 1.1;
/** How many times what plain decoding is estimated to bring is so clearly more that there is no need to try it. */
const CLEARLY = 1.3;
/** Windows from one try of what seems worse to the next: twice as many each time that it was, from the first to the last of these. */
const RETRY = { first: 8, last: 128 };
/** How many times what steps took of late one counts for at most: what is far above that was held up once, and by no draft. */
const LONGEST = 2;
/** Weight of a step in what steps took of late. */
const STEP_WEIGHT = 1 / 8;

class Arm {
  #tokens = 0;
  #seconds = 0;
  #stepSeconds: number | null = null;
  numWindows = 0;

  /** A step's seconds as far as they count. */
  clip(seconds: number): number {
    this.#stepSeconds ??= seconds;
    const counted = Math.min(seconds, LONGEST * this.#stepSeconds);
    this.#stepSeconds += STEP_WEIGHT * (counted - this.#stepSeconds);
    return counted;
  }

  /** Tokens per second. */
  get rate(): number {
    return this.#tokens / this.#seconds;
  }

  add(tokens: number, seconds: number, discount: number): void {
    this.#tokens = discount * this.#tokens + tokens;
    this.#seconds = discount * this.#seconds + seconds;
    this.numWindows++;
  }
}

/**
 * Estimates of costs and of acceptance say how much to draft; this one says whether. It compares windows of steps of about the same
 * number of sequences; the estimate of plain steps stands in as long as few of them were measured. What it loses by trying falls
 * with time: half of what is tried in a row, at most one window in nine at first, one in 129 later.
 */
class Comparison {
  readonly #drafting = new Arm();
  readonly #plain = new Arm();
  #isDrafting = true;
  #isTry = false;
  #isCompared = false;
  /** Windows to come before the other kind is tried again. */
  #untilTry: number = RETRY.first;
  #retry: number = RETRY.first;
  #planned = 0;
  #window = { tokens: 0, seconds: 0, numSteps: 0 };
  /** Tokens per second of plain steps, by the estimate of the last step that had one. */
  #plainEstimate = Number.POSITIVE_INFINITY;

  /** Whether the next step may draft. */
  get isDrafting(): boolean {
    return this.#isDrafting;
  }

  /** Whether the next step shall draft, whatever estimates say: it is tried, or was measured to pay. */
  get mustDraft(): boolean {
    return this.#isCompared && this.#isDrafting;
  }

  get leastGain(): number {
    return this.#isCompared ? 1 : UNPROVEN_GAIN;
  }

  /** A step was planned. */
  planned(): void {
    this.#planned++;
    if (this.#planned >= WINDOW && (this.#window.seconds >= WINDOW_SECONDS || this.#planned >= MOST_STEPS)) this.#choose();
  }

  /** A step is back. Steps planned before the last choice count as what they were. */
  settle(drafted: boolean, tokens: number, seconds: number, plainEstimate: number | null): void {
    if (plainEstimate !== null) this.#plainEstimate = plainEstimate;
    if (drafted !== this.#isDrafting) return;
    const window = this.#window;
    window.tokens += tokens;
    window.seconds += (drafted ? this.#drafting : this.#plain).clip(seconds);
    window.numSteps++;
  }

  /** Tokens per second of plain steps: as measured, and as estimated as long as that was not often. */
  get #plainRate(): number {
    if (this.#plainEstimate === Number.POSITIVE_INFINITY) return this.#plain.rate;
    const share = ESTIMATE_WINDOWS / (ESTIMATE_WINDOWS + this.#plain.numWindows);
    return this.#plain.rate ** (1 - share) * this.#plainEstimate ** share;
  }

  #choose(): void {
    const { tokens, seconds, numSteps } = this.#window;
    const arm = this.#isDrafting ? this.#drafting : this.#plain;
    if (numSteps >= WINDOW / 2 && seconds > 0) arm.add(tokens, seconds, this.#isTry ? TRY_DISCOUNT : DISCOUNT);
    this.#window = { tokens: 0, seconds: 0, numSteps: 0 };
    this.#planned = 0;
    const other = this.#isDrafting ? this.#plain : this.#drafting;
    if (arm.numWindows < ENOUGH) return;
    if (this.#isDrafting && !this.#isTry && this.#drafting.rate > CLEARLY * Math.max(this.#plainEstimate, this.#plain.rate || 0)) {
      this.#isCompared = true;
      return;
    }
    if (other.numWindows < ENOUGH) {
      this.#isDrafting = !this.#isDrafting;
      return;
    }
    this.#isCompared = true;
    const pays = this.#drafting.rate > (1 + MIN_GAIN) * this.#plainRate;
    if (this.#isTry) this.#retry = this.#isDrafting === pays ? RETRY.first : Math.min(RETRY.last, 2 * this.#retry);
    if (this.#isTry) this.#untilTry = this.#retry;
    this.#isTry = this.#untilTry-- <= 0;
    this.#isDrafting = this.#isTry ? !pays : pays;
  }
}

export class RateGuard {
  /** By the number of sequences, each from a power of two on. */
  readonly #comparisons: Comparison[] = [];

  /** Whether a step of so many decoding sequences may draft. */
  mayDraft(numSequences: number): boolean {
    return this.#of(numSequences).isDrafting;
  }

  /** Whether such a step shall draft, whatever estimates say: it is tried, or was measured to pay. */
  mustDraft(numSequences: number): boolean {
    return this.#of(numSequences).mustDraft;
  }

  /** How many times the tokens per second of a plain step its drafts must promise. */
  leastGain(numSequences: number): number {
    return this.#of(numSequences).leastGain;
  }

  /** A step of so many was planned. */
  planned(numSequences: number): void {
    this.#of(numSequences).planned();
  }

  /**
   * A step brought so many tokens, in so many seconds since the one before it.
   * @param plainSeconds - what one without drafts is estimated to take; null where nothing was estimated
   */
  settle(numSequences: number, drafted: boolean, tokens: number, seconds: number, plainSeconds: number | null = null): void {
    this.#of(numSequences).settle(drafted, tokens, seconds, plainSeconds === null ? null : numSequences / plainSeconds);
  }

  #of(numSequences: number): Comparison {
    const index = Math.floor(Math.log2(numSequences));
    let comparison = this.#comparisons[index];
    if (comparison === undefined) {
      comparison = new Comparison();
      this.#comparisons[index] = comparison;
    }
    return comparison;
  }
}
