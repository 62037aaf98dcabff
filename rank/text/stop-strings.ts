/** Finds stop strings in streamed text, independent of how it is split into pieces. */
import { NdsError } from '../../protocol/errors.ts';

/** One stop string and the length of its prefix matched so far (Knuth, Morris and Pratt, 1977). */
class Matcher {
  readonly stop: string;
  /** Length of the longest proper prefix of `stop` that the text so far ends with. */
  matched = 0;
  /** `[stop.length]` length of the longest proper prefix of `stop[0 … i]` that is also its suffix. */
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

/** Result of one piece of text. */
export interface StopResult {
  /**
   * Text that belongs to no stop string: up to the one found (or to its end, with `includeStop`), else without a
   * possible beginning of one.
   */
  readonly text: string;
  /** The stop string found; `null` until then. */
  readonly stop: string | null;
}

/**
 * Watches streamed text for any of several stop strings and holds back text that may begin one.
 *
 * The first one *completed* wins, and the longest of those completed by the same character, so that the outcome depends
 * on the text alone, never on how it was split. Time is linear in the text for each stop string.
 */
export class StopStrings {
  readonly #matchers: readonly Matcher[];
  readonly #includeStop: boolean;
  /** Text held back: the longest prefix of a stop string that the text ends with. */
  #held = '';
  #stop: string | null = null;

  /**
   * @param includeStop - whether the text includes the stop string that was found
   * @throws NdsError ERR_REQUEST for an empty stop string or one with a lone surrogate, which no text can contain
   */
  constructor(stops: readonly string[], includeStop = false) {
    this.#includeStop = includeStop;
    for (const stop of stops) {
      if (stop === '' || /\p{Surrogate}/u.test(stop)) {
        throw new NdsError('ERR_REQUEST', `Expected non-empty, well-formed text for stop but received ${JSON.stringify(stop)}`);
      }
    }
    // Longest first, so that the first matcher to complete wins.
    this.#matchers = [...new Set(stops)].sort((a, b) => b.length - a.length).map((stop) => new Matcher(stop));
  }

  /** Takes the next piece of text; text after a stop string is dropped. */
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

  /** The text held back, for a text that ends without a stop string. */
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
