/** Runs code that draws random numbers once per possible outcome, with the exact probability of each. */

/** Uniform numbers in [0, 1) by address; an address has the same number whenever it is read. */
export interface Draws {
  /** Whether the number at this address is below `limit`. */
  isBelow(address: string, limit: number): boolean;
  /** Index of the interval of the cumulative probabilities that contains the number. */
  pick(address: string, probabilities: readonly number[]): number;
}

/** Interval that a number is known to be in. */
interface Range {
  low: number;
  high: number;
}

class Run implements Draws {
  probability = 1;
  readonly #answers: boolean[];
  readonly #ranges = new Map<string, Range>();
  #asked = 0;

  /** `answers` to the first questions; each further question is answered yes, and that is appended. */
  constructor(answers: boolean[]) {
    this.#answers = answers;
  }

  isBelow(address: string, limit: number): boolean {
    const range = this.#ranges.get(address) ?? { low: 0, high: 1 };
    if (limit <= range.low) return false;
    if (limit >= range.high) return true;
    if (this.#asked === this.#answers.length) this.#answers.push(true);
    const answer = this.#answers[this.#asked++] === true;
    const width = range.high - range.low;
    this.probability *= (answer ? limit - range.low : range.high - limit) / width;
    this.#ranges.set(address, answer ? { ...range, high: limit } : { ...range, low: limit });
    return answer;
  }

  pick(address: string, probabilities: readonly number[]): number {
    let below = 0;
    const last = probabilities.findLastIndex((p) => p > 0);
    for (const [i, p] of probabilities.entries()) {
      below += p;
      if (i === last || (p > 0 && this.isBelow(address, below))) return i;
    }
    throw new RangeError('Expected probabilities above 0 but received none');
  }
}

/** Calls `body` for every possible combination of answers, and `visit` with its result and probability. */
export function enumerateDraws<T>(body: (draws: Draws) => T, visit: (outcome: T, probability: number) => void): void {
  const answers: boolean[] = [];
  do {
    const run = new Run(answers);
    visit(body(run), run.probability);
    while (answers.length > 0 && answers.at(-1) === false) answers.pop();
    if (answers.length > 0) answers[answers.length - 1] = false;
  } while (answers.length > 0);
}
