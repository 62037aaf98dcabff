/** Streaming detokenization: yields whole characters, in time linear in the number of tokens. */
import { isUtf8 } from 'node:buffer';
import type { TokenBytes } from './token-bytes.ts';

/** Inputs of a `Detokenizer` from its tokenizer and the text before it. */
export interface DetokenizerOptions {
  /** Ids without text in the output, such as `</s>`. */
  readonly skipTokenIds: ReadonlySet<number>;
  /** Whether other text precedes: a leading space is part of the text then, and is kept. */
  readonly continuing: boolean;
}

/**
 * Decodes one sequence. The concatenated text of all `push` calls and of `finish` equals the Rust library's decode of
 * all tokens at once, however the tokens are split over calls.
 *
 * Byte-level tokens are one stream of bytes: a character that spans tokens is emitted with its last byte, and invalid
 * UTF-8 becomes U+FFFD as the WHATWG Encoding Standard says. Byte-fallback tokens are decoded by run: a run that is not
 * valid UTF-8 as a whole becomes one U+FFFD per byte, so text is emitted when its run ends.
 */
export class Detokenizer {
  readonly #tokenBytes: TokenBytes;
  readonly #skipTokenIds: ReadonlySet<number>;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Bytes of the current run of fallback tokens. */
  #run: number[] = [];
  /** Max leading characters that may still be stripped. */
  #stripCount: number;

  constructor(tokenBytes: TokenBytes, options: DetokenizerOptions) {
    this.#tokenBytes = tokenBytes;
    this.#skipTokenIds = options.skipTokenIds;
    this.#stripCount = options.continuing ? 0 : tokenBytes.leadingStrip.count;
  }

  /** Text that these tokens complete; empty while a character is incomplete. */
  push(tokenIds: Iterable<number>): string {
    let text = '';
    for (const id of tokenIds) {
      if (this.#skipTokenIds.has(id)) continue;
      const bytes = this.#tokenBytes.get(id);
      if (this.#tokenBytes.byteIds.has(id)) this.#run.push(...bytes);
      else if (bytes.length > 0) text += this.#endRun() + this.#decoder.decode(bytes, { stream: true });
    }
    return this.#strip(text);
  }

  /** The remaining text: U+FFFD for an incomplete character. */
  finish(): string {
    return this.#strip(this.#endRun() + this.#decoder.decode());
  }

  #endRun(): string {
    if (this.#run.length === 0) return '';
    const bytes = Uint8Array.from(this.#run);
    this.#run = [];
    return isUtf8(bytes) ? new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes) : '\ufffd'.repeat(bytes.length);
  }

  #strip(text: string): string {
    if (this.#stripCount === 0 || text === '') return text;
    const { content } = this.#tokenBytes.leadingStrip;
    let start = 0;
    while (this.#stripCount > 0 && start < text.length && text[start] === content) {
      start++;
      this.#stripCount--;
    }
    if (start < text.length) this.#stripCount = 0;
    return text.slice(start);
  }
}
