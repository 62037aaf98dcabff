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

const minHeldBytes = 256;

/** Joins the chunks of a stream to values; holds at most twice the bytes of an unfinished frame, however it is cut. */
export class FrameReader {
  readonly #maxBytes: number;
  /** Of which the first `#numHeld` are the start of a frame. */
  #held: Buffer = Buffer.alloc(0);
  #numHeld = 0;

  /** @param maxBytes - of a frame without its length */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The values that a chunk completes. @throws NdsError `ERR_PROTOCOL` for a frame too long, or one that is not plain. */
  push(chunk: Uint8Array): unknown[] {
    const bytes = this.#numHeld === 0 ? chunk : this.#append(chunk);
    const values: unknown[] = [];
    let at = 0;
    for (;;) {
      const length = this.#length(bytes, at);
      if (length === null || bytes.length - at < 4 + length) break;
      values.push(decodePlain(bytes.subarray(at + 4, at + 4 + length)));
      at += 4 + length;
    }
    this.#keep(bytes, at);
    return values;
  }

  /** Length of the frame that starts at `at`; null while its first bytes are missing. */
  #length(bytes: Uint8Array, at: number): number | null {
    if (bytes.length - at < 4) return null;
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
    if (length > this.#maxBytes) {
      throw new NdsError('ERR_PROTOCOL', `Expected a frame of at most ${this.#maxBytes} bytes but received one of ${length}`);
    }
    return length;
  }

  /** What is held, with a chunk behind it. */
  #append(chunk: Uint8Array): Uint8Array {
    const numBytes = this.#numHeld + chunk.length;
    if (numBytes > this.#held.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(minHeldBytes, numBytes, 2 * this.#numHeld));
      grown.set(this.#held.subarray(0, this.#numHeld));
      this.#held = grown;
    }
    this.#held.set(chunk, this.#numHeld);
    this.#numHeld = numBytes;
    return this.#held.subarray(0, numBytes);
  }

  /** Holds the bytes from `at` on. */
  #keep(bytes: Uint8Array, at: number): void {
    if (this.#numHeld > 0 && at === 0) return;
    this.#held = Buffer.from(bytes.subarray(at));
    this.#numHeld = this.#held.length;
  }
}
