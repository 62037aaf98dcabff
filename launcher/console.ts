/** Lines of several ranks on one stream: prefixes each, and ends a line that is still open when another rank writes. */
import type { FdWriter } from './fd-writer.ts';

/** A source of lines, each of which begins with the prefix. */
export interface Speaker {
  readonly prefix: Buffer;
}

const newline = 0x0a;
const lineEnd = Buffer.from('\n');

export class Console {
  readonly #writer: FdWriter;
  /** Speaker of the last line, if it has no newline yet. */
  #open: Speaker | null = null;

  constructor(writer: FdWriter) {
    this.#writer = writer;
  }

  /** Whether this speaker's next output continues its own line. */
  isOpenFor(speaker: Speaker): boolean {
    return this.#open === speaker;
  }

  /** Writes pieces, one line each; only the last may lack its newline. Ends another speaker's open line first. */
  write(speaker: Speaker, pieces: readonly Buffer[]): void {
    const out: Buffer[] = [];
    for (const piece of pieces) {
      if (piece.length === 0) continue;
      if (this.#open !== null && this.#open !== speaker) out.push(lineEnd);
      if (this.#open !== speaker) out.push(speaker.prefix);
      out.push(piece);
      this.#open = piece[piece.length - 1] === newline ? null : speaker;
    }
    this.#writer.write(Buffer.concat(out));
  }

  drained(): Promise<void> {
    return this.#writer.drained();
  }
}
