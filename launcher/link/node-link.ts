/** The connections of one launcher to the others, once all nodes have met. */
import { EventEmitter } from 'node:events';
import { NdsError } from '../../protocol/errors.ts';
import type { Channel } from './channel.ts';
import type { Welcome } from './hello.ts';

/**
 * On node 0 a connection to each other node, on the others one to node 0.
 *
 * Emits `message` with the sender's node rank and a plain value that the listener has to check: a listener that throws
 * `ERR_PROTOCOL` loses the sender. Emits `lost` once for each node whose connection ended before `close` was called, in
 * whatever order, with the reason. Listeners must be there before the caller waits for anything.
 */
export class NodeLink extends EventEmitter<{ message: [nodeRank: number, message: unknown]; lost: [nodeRank: number, reason: string] }> {
  readonly welcome: Welcome;
  readonly #channels: ReadonlyMap<number, Channel>;
  readonly #release: () => void;

  /** @param release - called by `close` */
  constructor(welcome: Welcome, channels: ReadonlyMap<number, Channel>, release: () => void) {
    super();
    this.welcome = welcome;
    this.#channels = channels;
    this.#release = release;
    setImmediate(() => this.#start());
  }

  /** No-op where the node is lost. */
  send(nodeRank: number, message: object): void {
    const channel = this.#channels.get(nodeRank);
    if (channel === undefined) throw new NdsError('ERR_INTERNAL', `Expected a linked node but received node ${nodeRank}`);
    channel.send('message', message);
  }

  /** Lets what was sent leave, then ends the connections; takes a second at most. */
  async close(): Promise<void> {
    this.removeAllListeners();
    this.#release();
    await Promise.all([...this.#channels.values()].map((channel) => channel.close()));
  }

  #start(): void {
    for (const [nodeRank, channel] of this.#channels) {
      channel.receive(
        ({ type, body }) => {
          if (type !== 'message') throw new NdsError('ERR_PROTOCOL', `Expected a message but received ${type}`);
          this.emit('message', nodeRank, body);
        },
        (reason) => this.emit('lost', nodeRank, reason),
      );
    }
  }
}
