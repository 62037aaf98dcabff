/** One send at a time on a socket: a second one while the first is pending would throw. */
import type { Push } from 'zeromq';

/** Frames leave in the order in which they are given; nobody waits for them, save at the end. */
export class SendQueue {
  readonly #socket: Push;
  readonly #onError: (error: unknown) => void;
  readonly #queue: Uint8Array[][] = [];
  #draining: Promise<void> | null = null;

  constructor(socket: Push, onError: (error: unknown) => void) {
    this.#socket = socket;
    this.#onError = onError;
  }

  /** Queues one message. The frames must not change afterwards. */
  send(frames: Uint8Array[]): void {
    this.#queue.push(frames);
    this.#draining ??= this.#drain();
  }

  /** Settles when everything given so far has been handed to the socket. */
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
