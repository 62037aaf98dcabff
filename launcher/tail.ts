/** The last lines of a stream, for the error report. */

/** Keeps the end of a stream: at most `maxLines` lines and `maxBytes` bytes. */
export class Tail {
  readonly #maxLines: number;
  readonly #maxBytes: number;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(maxLines = 50, maxBytes = 32 * 1024) {
    this.#maxLines = maxLines;
    this.#maxBytes = maxBytes;
  }

  push(chunk: Buffer): void {
    const joined = Buffer.concat([this.#bytes, chunk]);
    this.#bytes = Buffer.from(joined.subarray(Math.max(0, joined.length - this.#maxBytes)));
  }

  lines(): string[] {
    const lines = this.#bytes.toString('utf8').split('\n');
    if (lines.at(-1) === '') lines.pop();
    return lines.slice(-this.#maxLines);
  }
}
