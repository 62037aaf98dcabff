/** Cuts a byte stream into whole lines. */

const newline = 0x0a;
const lineEnd = Buffer.from('\n');

/** Holds an unterminated line until its newline. A line longer than `maxLineBytes` is split. */
export class LineBuffer {
  readonly #maxLineBytes: number;
  #partial: Buffer = Buffer.alloc(0);

  constructor(maxLineBytes = 64 * 1024) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** Lines that `chunk` completes, each with its newline. */
  push(chunk: Buffer): Buffer[] {
    let rest = this.#partial.length === 0 ? chunk : Buffer.concat([this.#partial, chunk]);
    const lines: Buffer[] = [];
    while (rest.length > 0) {
      const end = rest.indexOf(newline) + 1;
      const lineBytes = end === 0 ? rest.length : end - 1;
      if (lineBytes > this.#maxLineBytes) {
        const cut = characterBoundary(rest, this.#maxLineBytes);
        lines.push(Buffer.concat([rest.subarray(0, cut), lineEnd]));
        rest = rest.subarray(cut);
      } else if (end === 0) {
        break;
      } else {
        lines.push(rest.subarray(0, end));
        rest = rest.subarray(end);
      }
    }
    this.#partial = rest;
    return lines;
  }

  get hasPartial(): boolean {
    return this.#partial.length > 0;
  }

  /** Takes the unterminated line; the bytes of an incomplete UTF-8 character are kept unless this is the end. */
  takePartial(isEnd: boolean): Buffer {
    const end = isEnd ? this.#partial.length : characterBoundary(this.#partial, this.#partial.length);
    const taken = this.#partial.subarray(0, end);
    this.#partial = this.#partial.subarray(end);
    return taken;
  }
}

/** The largest prefix length of at most `limit` bytes that splits no UTF-8 character. */
export function characterBoundary(bytes: Buffer, limit: number): number {
  for (let back = 1; back <= Math.min(4, limit); back++) {
    const byte = bytes[limit - back] ?? 0;
    // A continuation byte: the character starts further back.
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? limit - back : limit;
  }
  return limit;
}
