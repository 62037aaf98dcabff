/** Launchers of several nodes in one process: what they are called with, each job at a loopback address of its own. */
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type LinkCall, type NodeIdentity, type NodeLink, openLink } from '../../launcher/link/index.ts';
import { parseLaunchOptions } from '../../launcher/options.ts';

export const identity: NodeIdentity = {
  version: '1.0.0',
  arch: 'x64',
  isas: ['avx512', 'avx2', 'portable'],
  libraries: { zeromq: '6' },
};

const port = 29_400;
let numAddresses = 0;

function newAddress(): string {
  return `127.${1 + ((process.pid >> 8) % 250)}.${process.pid % 256}.${++numAddresses}`;
}

/** A wire to a port that can be cut: bytes wait, as they do in a network that loses packets. */
export class Relay {
  readonly address = newAddress();
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  static async open(port: number, address: string): Promise<Relay> {
    const relay = new Relay(port, address);
    relay.#server.listen(port, relay.address);
    await once(relay.#server, 'listening');
    return relay;
  }

  private constructor(port: number, address: string) {
    this.#server = createServer((near) => {
      const far = connect(port, address);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('data', (chunk) => to.write(chunk));
        from.on('error', () => {}).on('close', () => to.destroy());
      }
    });
  }

  cut(): void {
    for (const socket of this.#sockets) socket.pause();
  }

  mend(): void {
    for (const socket of this.#sockets) socket.resume();
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** A job of several nodes. Linux routes all of 127.0.0.0/8 to this machine. */
export class LinkJob {
  readonly nnodes: number;
  readonly address: string;
  readonly port: number = port;
  readonly #tokenFile: string;
  /** Lines of node 0 and of the others. */
  readonly notices: string[] = [];
  readonly #stop = new AbortController();

  constructor(t: Test, nnodes: number, address?: string) {
    this.nnodes = nnodes;
    this.address = address ?? newAddress();
    this.#tokenFile = tokenFile(t, 'token', 'a secret of all nodes');
  }

  /** @param address - that the node believes node 0 to have */
  call(nodeRank: number | null, args: readonly string[] = [], change: Partial<LinkCall> = {}, address = this.address): LinkCall {
    const given = nodeRank === null ? ['--rdzv-backend=c10d'] : [`--node-rank=${nodeRank}`];
    const meeting = [`--nnodes=${this.nnodes}`, `--master-addr=${address}`, `--master-port=${this.port}`, ...given];
    const token = args.some((arg) => arg.startsWith('--token-file')) ? [] : [`--token-file=${this.#tokenFile}`];
    return {
      options: parseLaunchOptions([...meeting, ...token, ...args, 'a.ts'], {}),
      localWorldSize: 2,
      identity,
      notice: (line) => this.notices.push(line),
      signal: this.#stop.signal,
      ...change,
    };
  }

  open(...args: Parameters<LinkJob['call']>): Promise<NodeLink> {
    return openLink(this.call(...args));
  }

  /** Resolves once node 0 listens. */
  async listening(): Promise<void> {
    while (!this.notices.some((line) => line.startsWith('node 0 listens'))) await new Promise(setImmediate);
  }

  /** The error that each link fails with, in the order of `links`. */
  async errors(links: readonly Promise<NodeLink>[]): Promise<{ code: string; message: string }[]> {
    const outcomes = await Promise.allSettled(links);
    return outcomes.map((outcome) => {
      if (outcome.status === 'fulfilled') throw new Error('Expected an error but received a link');
      return outcome.reason;
    });
  }
}

export function tokenFile(t: Test, name: string, token: string, mode = 0o600): string {
  const folder = mkdtempSync(join(tmpdir(), 'link-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, name);
  writeFileSync(file, token);
  chmodSync(file, mode);
  return file;
}

/** The arguments of the next event of one name, and of those that follow. */
export function nextEvent(link: NodeLink, name: 'message' | 'lost'): Promise<[number, unknown]> {
  return new Promise((resolve) => link.once(name, (...args: [number, unknown]) => resolve(args)));
}
