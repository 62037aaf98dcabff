/** Streaming detokenization with special tokens, which are marked: the text in which stop strings are found. */
import type { Detokenizer } from './detokenizer.ts';
import type { MarkedText } from './stop-strings.ts';

/** Decodes one sequence, special tokens included. */
export class MarkedDetokenizer {
  readonly #detokenizer: Detokenizer;
  readonly #hiddenText: (id: number) => string | null;

  /**
   * @param detokenizer - leaves out nothing
   * @param hiddenText - text of a token that the output leaves out; null for any other
   */
  constructor(detokenizer: Detokenizer, hiddenText: (id: number) => string | null) {
    this.#detokenizer = detokenizer;
    this.#hiddenText = hiddenText;
  }

  /** Text that these tokens complete. A hidden token also completes the text before it. */
  push(tokenIds: Iterable<number>): MarkedText[] {
    const texts: MarkedText[] = [];
    for (const id of tokenIds) {
      const text = this.#detokenizer.push([id]);
      const hidden = this.#hiddenText(id);
      const numShown = hidden === null ? text.length : Math.max(0, text.length - hidden.length);
      texts.push({ text: text.slice(0, numShown), isHidden: false }, { text: text.slice(numShown), isHidden: true });
    }
    return texts.filter(({ text }) => text !== '');
  }

  /** The remaining text. */
  finish(): MarkedText[] {
    return [{ text: this.#detokenizer.finish(), isHidden: false }];
  }
}
