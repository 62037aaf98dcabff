/** A place where several ranks write lines: prefixes, and a line that is still open when another rank speaks. */
import type { FdWriter } from './fd-writer.ts';

/** One who writes; the prefix begins each of its lines. */
export interface Speaker {
  readonly prefix: Buffer;
}

const newline = 0x0a;
const lineEnd = Buffer.from('\n');

export class Console {
  readonly #writer: FdWriter;
  /** Whose line has no newline yet. */
  #open: Speaker | null = null;

  constructor(writer: FdWriter) {
    this.#writer = writer;
  }

  /** Whether what this speaker writes next continues its own line. */
  isOpenFor(speaker: Speaker): boolean {
    return this.#open === speaker;
  }

  /** Writes pieces, each a line; only the last may lack its newline. Another's open line is ended first. */
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
