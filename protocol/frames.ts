/** Plain values on a stream: a frame is its length (uint32, little-endian) and a plain msgpack value. */
import { NdsError } from './errors.ts';
import { decodePlain, encodePlain } from './wire.ts';

/** A value with its length before it. */
export function encodeFrame(value: unknown): Buffer {
  const body = encodePlain(value);
  const frame = Buffer.alloc(4 + body.length);
  frame.writeUInt32LE(body.length);
  frame.set(body, 4);
  return frame;
}

/** Joins the chunks of a stream to values; holds less than one frame and one chunk. */
export class FrameReader {
  readonly #maxBytes: number;
  #chunks: Uint8Array[] = [];
  #numBytes = 0;

  /** @param maxBytes - of a frame without its length */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The values that a chunk completes. @throws NdsError `ERR_PROTOCOL` for a frame too long, or one that is not plain. */
  push(chunk: Uint8Array): unknown[] {
    this.#chunks.push(chunk);
    this.#numBytes += chunk.length;
    const values: unknown[] = [];
    for (;;) {
      const length = this.#length();
      if (length === null || this.#numBytes < 4 + length) return values;
      const joined = this.#join();
      values.push(decodePlain(joined.subarray(4, 4 + length)));
      this.#chunks = joined.length === 4 + length ? [] : [joined.subarray(4 + length)];
      this.#numBytes -= 4 + length;
    }
  }

  /** Length of the frame that is being read; null while its first bytes are missing. */
  #length(): number | null {
    if (this.#numBytes < 4) return null;
    if ((this.#chunks[0]?.length ?? 0) < 4) this.#join();
    const [first] = this.#chunks as [Uint8Array];
    const length = new DataView(first.buffer, first.byteOffset).getUint32(0, true);
    if (length > this.#maxBytes) {
      throw new NdsError('ERR_PROTOCOL', `Expected a frame of at most ${this.#maxBytes} bytes but received one of ${length}`);
    }
    return length;
  }

  #join(): Uint8Array {
    const joined = this.#chunks.length === 1 ? (this.#chunks[0] as Uint8Array) : Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}
