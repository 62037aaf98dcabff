/** Finds stop strings in streamed text, however it is split into pieces. */
import { NdsError } from '../../protocol/errors.ts';

/** One stop string and how much of it the text ends with (Knuth, Morris and Pratt, 1977). */
class Matcher {
  readonly stop: string;
  /** Length of the longest proper prefix of `stop` that the text seen so far ends with. */
  matched = 0;
  /** `[stop.length]` the longest proper prefix of `stop` that is also a suffix of `stop[0 … i]`. */
  readonly #borders: Int32Array;

  constructor(stop: string) {
    this.stop = stop;
    this.#borders = new Int32Array(stop.length);
    for (let i = 1, length = 0; i < stop.length; i++) {
      while (length > 0 && stop[i] !== stop[length]) length = this.#borders[length - 1] ?? 0;
      if (stop[i] === stop[length]) length++;
      this.#borders[i] = length;
    }
  }

  /** Takes the next code unit; true when it completes the stop string. */
  step(unit: string): boolean {
    while (this.matched > 0 && this.stop[this.matched] !== unit) this.matched = this.#borders[this.matched - 1] ?? 0;
    if (this.stop[this.matched] === unit) this.matched++;
    return this.matched === this.stop.length;
  }
}

/** Result of a piece of text. */
export interface StopResult {
  /** Text that is certain not to belong to a stop string; up to the stop string when there was one, or to its end. */
  readonly text: string;
  /** The stop string that was found, `null` while there is none. */
  readonly stop: string | null;
}

/**
 * Watches streamed text for any of several stop strings and holds back what may be the beginning of one.
 *
 * The first to be *completed* wins, and of those completed by the same character the longest: so the outcome depends on
 * the text alone, never on how it was cut. Time is linear in the text for each stop string.
 */
export class StopStrings {
  readonly #matchers: readonly Matcher[];
  readonly #includeStop: boolean;
  /** The end of the text so far, not handed out: the longest beginning of a stop string that the text ends with. */
  #held = '';
  #stop: string | null = null;

  /**
   * @param includeStop - whether a stop string that was found is part of the text
   * @throws NdsError ERR_REQUEST for an empty stop string or one with a lone surrogate, which no text can contain
   */
  constructor(stops: readonly string[], includeStop = false) {
    this.#includeStop = includeStop;
    for (const stop of stops) {
      if (stop === '' || /\p{Surrogate}/u.test(stop)) {
        throw new NdsError('ERR_REQUEST', `Expected non-empty, well-formed text for stop but received ${JSON.stringify(stop)}`);
      }
    }
    // Longest first: the first matcher that completes is then the one that wins.
    this.#matchers = [...new Set(stops)].sort((a, b) => b.length - a.length).map((stop) => new Matcher(stop));
  }

  /** Takes the next piece of text. After a stop string was found, everything further is dropped. */
  push(piece: string): StopResult {
    if (this.#stop !== null) return { text: '', stop: this.#stop };
    if (this.#matchers.length === 0) return { text: piece, stop: null };
    const text = this.#held + piece;
    for (let i = this.#held.length; i < text.length; i++) {
      const completed = this.#step(text.charAt(i));
      if (completed !== null) {
        this.#held = '';
        this.#stop = completed;
        return { text: text.slice(0, i + 1 - (this.#includeStop ? 0 : completed.length)), stop: completed };
      }
    }
    const heldLength = this.#matchers.reduce((longest, matcher) => Math.max(longest, matcher.matched), 0);
    this.#held = text.slice(text.length - heldLength);
    return { text: text.slice(0, text.length - heldLength), stop: null };
  }

  /** Returns the text held back, when it has ended without a stop string. */
  finish(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }

  /** Advances every matcher by one code unit; returns the longest stop string that it completes. */
  #step(unit: string): string | null {
    let completed: string | null = null;
    for (const matcher of this.#matchers) {
      if (matcher.step(unit)) completed ??= matcher.stop;
    }
    return completed;
  }
}
