/** Streaming detokenization: whole characters only, in time linear in the number of tokens. */
import { isUtf8 } from 'node:buffer';
import type { TokenBytes } from './token-bytes.ts';

/** Inputs of a `Detokenizer` from its tokenizer and the text before it. */
export interface DetokenizerOptions {
  /** Ids that stand for nothing in text, such as `</s>`. */
  readonly skipTokenIds: ReadonlySet<number>;
  /** Whether other text comes first: then a leading space belongs to the text and stays. */
  readonly continuing: boolean;
}

/**
 * Decodes one sequence. The text of all `push` calls and of `finish`, put together, is what the Rust library's decode of all
 * tokens at once gives, however they were split over calls.
 *
 * Byte-level tokens are one stream of bytes: a character that spans tokens appears with its last byte, and bytes that are no
 * UTF-8 become U+FFFD as the WHATWG Encoding Standard says. Byte-fallback tokens count by their runs: a run that is no UTF-8
 * as a whole is as many U+FFFD as it has bytes, so it appears when it has ended.
 */
export class Detokenizer {
  readonly #tokenBytes: TokenBytes;
  readonly #skipTokenIds: ReadonlySet<number>;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Bytes of the fallback tokens since the last other one. */
  #run: number[] = [];
  /** How many leading characters may still be dropped. */
  #stripCount: number;

  constructor(tokenBytes: TokenBytes, options: DetokenizerOptions) {
    this.#tokenBytes = tokenBytes;
    this.#skipTokenIds = options.skipTokenIds;
    this.#stripCount = options.continuing ? 0 : tokenBytes.leadingStrip.count;
  }

  /** Text that these tokens complete; empty while a character is unfinished. */
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

  /** The rest at the end: U+FFFD for an incomplete character. */
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
