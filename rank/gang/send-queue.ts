/** Serializes sends on a socket: ZeroMQ throws on a second send while one is pending. */
import type { Push } from 'zeromq';

/** Sends messages in FIFO order. Callers do not wait, except in `flush`. */
export class SendQueue {
  readonly #socket: Push;
  readonly #onError: (error: unknown) => void;
  readonly #queue: Uint8Array[][] = [];
  #draining: Promise<void> | null = null;

  constructor(socket: Push, onError: (error: unknown) => void) {
    this.#socket = socket;
    this.#onError = onError;
  }

  /** Queues one message. Its frames must not change afterwards. */
  send(frames: Uint8Array[]): void {
    this.#queue.push(frames);
    this.#draining ??= this.#drain();
  }

  /** Settles when the socket has accepted everything queued so far. */
  async flush(): Promise<void> {
    await this.#draining;
  }

  async #drain(): Promise<void> {
    try {
      for (let frames = this.#queue.shift(); frames !== undefined; frames = this.#queue.shift()) await this.#socket.send(frames);
    } catch (error) {
      this.#queue.length = 0;
      this.#onError(error);
    } finally {
      this.#draining = null;
    }
  }
}
