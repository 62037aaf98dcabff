/** Node 0's port: strangers are turned away, and those that know the token come out as channels with a greeting. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { NdsError } from '../../protocol/errors.ts';
import { Channel } from './channel.ts';
import { tlsOptions, tokenIdentity } from './handshake.ts';

/** From the connection to the greeting. */
const greetingMs = 5000;
/** Connections without a greeting; a new one ends the oldest, so that silent strangers keep nobody out. */
const maxStrangers = 128;
/** Peers with another token that are named, one line for each address. */
const maxNamed = 8;

export interface Guests {
  /** A peer has proved that it knows the token, and has sent this unchecked greeting. */
  onGreeting(channel: Channel, body: unknown): void;
  /** Receives a line for the console. */
  notice(line: string): void;
}

export class Listener {
  readonly #server: Server;
  readonly #guests: Guests;
  /** Oldest first, by remote address and port, which the plain and the TLS socket share. */
  readonly #strangers = new Map<string, Socket>();
  readonly #named = new Set<string>();

  private constructor(key: Buffer, guests: Guests) {
    this.#guests = guests;
    /** Peers of our kind whose key is about to be tried. */
    const claims = new WeakSet<TLSSocket>();
    const pskCallback = (socket: TLSSocket, identity: string): Buffer | null => {
      claims.add(socket);
      return identity === tokenIdentity ? key : null;
    };
    this.#server = createServer({ ...tlsOptions, pskCallback, handshakeTimeout: greetingMs });
    this.#server.on('connection', (socket: Socket) => this.#admit(socket));
    this.#server.on('secureConnection', (socket) => void this.#greet(socket));
    this.#server.on('tlsClientError', ({ code }: NodeJS.ErrnoException, socket) => {
      if (claims.has(socket) && code?.startsWith('ERR_SSL_')) this.#nameOther(socket.remoteAddress ?? 'an unknown address');
    });
  }

  /** @throws the system's error, such as `EADDRINUSE`. */
  static async open(host: string, port: number, key: Buffer, guests: Guests): Promise<Listener> {
    const listener = new Listener(key, guests);
    listener.#server.listen({ host, port, exclusive: true });
    await once(listener.#server, 'listening');
    // A failure to accept, such as too many open files, passes.
    listener.#server.on('error', ({ message }) => guests.notice(`warning: ${message}`));
    return listener;
  }

  /** Ends connections without a greeting, and takes no others. Channels stay. */
  close(): void {
    this.#server.close();
    for (const socket of this.#strangers.values()) socket.destroy();
  }

  #admit(socket: Socket): void {
    const [oldest] = this.#strangers.values();
    if (this.#strangers.size >= maxStrangers) oldest?.destroy();
    const name = nameOf(socket);
    const timer = setTimeout(() => this.#strangers.get(name)?.destroy(), greetingMs);
    this.#strangers.set(name, socket);
    socket.once('close', () => {
      clearTimeout(timer);
      if (this.#strangers.get(name) === socket) this.#strangers.delete(name);
    });
  }

  async #greet(socket: TLSSocket): Promise<void> {
    const channel = new Channel(socket);
    try {
      const { type, body } = await channel.next();
      if (type !== 'hello') throw new NdsError('ERR_PROTOCOL', `Expected a greeting but received ${type}`);
      this.#strangers.delete(nameOf(socket));
      this.#guests.onGreeting(channel, body);
    } catch (error) {
      if (!(error instanceof NdsError)) throw error;
      channel.fail(error.message);
    }
  }

  #nameOther(address: string): void {
    if (this.#named.has(address) || this.#named.size >= maxNamed) return;
    this.#named.add(address);
    this.#guests.notice(`a node at ${address} has another token, and was refused`);
  }
}

function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
