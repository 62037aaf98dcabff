/** Finds stop strings in streamed text, shown or hidden, independent of how it is split into pieces. */
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

/** Text of a token, or of several, with special tokens. */
export interface MarkedText {
  readonly text: string;
  /** Whether it is a special token's that the output leaves out. */
  readonly isHidden: boolean;
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

/** A stop string that a piece completes. */
interface Found {
  readonly stop: string;
  /** Code units of output that follow it in its piece. */
  readonly numAfter: number;
  /** Code units of output that belong to it. */
  readonly numShown: number;
  /** Whether it ends in a hidden token. */
  readonly endsHidden: boolean;
}

/** Of the stop strings found without and with hidden tokens the one that ends first, and the longer of two at one place. */
function firstOf(shown: Found | null, marked: Found | null): Found | null {
  if (shown === null || marked === null) return shown ?? marked;
  if (shown.numAfter !== marked.numAfter) return shown.numAfter > marked.numAfter ? shown : marked;
  return marked.endsHidden || shown.stop.length > marked.stop.length ? shown : marked;
}

/** Searches the text with hidden tokens for stop strings that a hidden token is a part of. */
class MarkedMatcher {
  /** Longest stop string first. */
  readonly #matchers: readonly Matcher[];
  /** The newest text, back to the longest stop string's length. */
  #newest: { length: number; isHidden: boolean }[] = [];

  constructor(stops: readonly string[]) {
    this.#matchers = stops.map((stop) => new Matcher(stop));
  }

  /** Code units of output that may be the beginning of a stop string with a hidden token. */
  get numHeld(): number {
    const begun = this.#matchers.filter(({ matched }) => this.#count(matched, true) > 0);
    return begun.reduce((longest, { matched }) => Math.max(longest, this.#count(matched, false)), 0);
  }

  /** The first stop string that these texts complete. */
  push(texts: readonly MarkedText[]): Found | null {
    let numAfter = texts.reduce((sum, { text, isHidden }) => sum + (isHidden ? 0 : text.length), 0);
    for (const { text, isHidden } of texts) {
      for (let i = 0; i < text.length; i++) {
        if (!isHidden) numAfter--;
        this.#extend(isHidden);
        const stop = this.#step(text.charAt(i));
        if (stop !== null) return { stop, numAfter, numShown: this.#count(stop.length, false), endsHidden: isHidden };
      }
    }
    return null;
  }

  #step(unit: string): string | null {
    let completed: string | null = null;
    for (const matcher of this.#matchers) {
      const isComplete = matcher.step(unit);
      if (isComplete && completed === null && this.#count(matcher.stop.length, true) > 0) completed = matcher.stop;
    }
    return completed;
  }

  #extend(isHidden: boolean): void {
    const last = this.#newest.at(-1);
    if (last?.isHidden === isHidden) last.length++;
    else this.#newest.push({ length: 1, isHidden });
    const longest = this.#matchers[0]?.stop.length ?? 0;
    const total = this.#newest.reduce((sum, { length }) => sum + length, 0);
    if (total - (this.#newest[0]?.length ?? 0) >= longest) this.#newest.shift();
  }

  /** Hidden or shown code units among the newest `length` ones. */
  #count(length: number, isHidden: boolean): number {
    let [left, count] = [length, 0];
    for (let i = this.#newest.length - 1; i >= 0 && left > 0; i--) {
      const run = this.#newest[i] as { length: number; isHidden: boolean };
      if (run.isHidden === isHidden) count += Math.min(left, run.length);
      left -= run.length;
    }
    return count;
  }
}

/**
 * Watches streamed text for any of several stop strings and holds back text that may begin one.
 *
 * The first one *completed* wins, and the longest of those completed by the same character, so that the outcome depends
 * on the text alone, never on how it was split. A stop string is found in the output and in the text with the special
 * tokens that the output leaves out. Time is linear in the text for each stop string.
 */
export class StopStrings {
  readonly #matchers: readonly Matcher[];
  readonly #marked: MarkedMatcher;
  readonly #includeStop: boolean;
  /** Output held back: the longest part of a begun stop string that the output ends with. */
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
    const sorted = [...new Set(stops)].sort((a, b) => b.length - a.length);
    this.#matchers = sorted.map((stop) => new Matcher(stop));
    this.#marked = new MarkedMatcher(sorted);
  }

  /**
   * Takes the next piece of text; text after a stop string is dropped.
   * @param piece - text of the output
   * @param marked - the same with special tokens; only where some are hidden
   * @param finish - the output's pending text; called where a hidden token, which comes after that, ends it
   */
  push(piece: string, marked: readonly MarkedText[] = [], finish: () => string = () => ''): StopResult {
    if (this.#stop !== null) return { text: '', stop: this.#stop };
    if (this.#matchers.length === 0) return { text: piece, stop: null };
    const found = firstOf(this.#search(piece), this.#marked.push(marked));
    const text = this.#held + piece;
    if (found !== null) {
      this.#held = '';
      this.#stop = found.stop;
      const whole = found.endsHidden ? text + finish() : text;
      const before = whole.slice(0, Math.max(0, whole.length - found.numAfter - found.numShown));
      return { text: this.#includeStop ? before + found.stop : before, stop: found.stop };
    }
    const numBegun = this.#matchers.reduce((longest, matcher) => Math.max(longest, matcher.matched), 0);
    const numHeld = Math.min(text.length, Math.max(numBegun, this.#marked.numHeld));
    this.#held = text.slice(text.length - numHeld);
    return { text: text.slice(0, text.length - numHeld), stop: null };
  }

  /** The text held back, for a text that ends without a stop string. */
  finish(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }

  /** The first stop string that a piece completes in the output. */
  #search(piece: string): Found | null {
    for (let i = 0; i < piece.length; i++) {
      const stop = this.#step(piece.charAt(i));
      if (stop !== null) return { stop, numAfter: piece.length - i - 1, numShown: stop.length, endsHidden: false };
    }
    return null;
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
