/** Runs code that draws random numbers once for everything that they can make it do, with the exact probability of each. */

/** Uniform numbers in [0, 1) by address: read again, an address has the number it had. */
export interface Draws {
  /** Whether the number at this address is below `limit`. */
  isBelow(address: string, limit: number): boolean;
  /** An index, by the number's place among the summed probabilities. */
  pick(address: string, probabilities: readonly number[]): number;
}

/** What is known of a number so far. */
interface Range {
  low: number;
  high: number;
}

class Run implements Draws {
  probability = 1;
  readonly #answers: boolean[];
  readonly #ranges = new Map<string, Range>();
  #asked = 0;

  /** `answers` to the first questions; the others are answered yes, and appended. */
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

/** Calls `body` for every combination of answers that can be, and `visit` with what it returned and how likely that is. */
export function enumerateDraws<T>(body: (draws: Draws) => T, visit: (outcome: T, probability: number) => void): void {
  const answers: boolean[] = [];
  do {
    const run = new Run(answers);
    visit(body(run), run.probability);
    while (answers.length > 0 && answers.at(-1) === false) answers.pop();
    if (answers.length > 0) answers[answers.length - 1] = false;
  } while (answers.length > 0);
}
