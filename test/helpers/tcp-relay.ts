/** A relay before a TCP port of this machine, whose wire a test may change. */
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import type { Test } from 'tap';

const loopback = '127.0.0.1';

export interface TcpRelay {
  readonly port: number;
  /** The accepted ends of the connections so far. */
  readonly clients: readonly Socket[];
  /** Ends all connections. */
  cut(): void;
}

/** @param wire - passes on what the two ends of a connection send */
export async function tcpRelay(t: Test, port: number, wire: (client: Socket, upstream: Socket) => void): Promise<TcpRelay> {
  const clients: Socket[] = [];
  const upstreams: Socket[] = [];
  const server = createServer((client) => {
    const upstream = connectTcp(port, loopback);
    clients.push(client);
    upstreams.push(upstream);
    wire(client, upstream);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, loopback, resolve));
  const cut = () => [clients, upstreams].forEach((sockets) => sockets.splice(0).forEach((socket) => socket.destroy()));
  t.teardown(() => {
    cut();
    server.close();
  });
  return { port: (server.address() as { port: number }).port, clients, cut };
}

/** Where the next frame begins and ends. */
export interface Framing {
  /** Bytes before the first frame. */
  readonly greetingBytes: number;
  /** Bytes of the frame that `bytes` begins with; null while its length is not known. */
  readonly lengthOf: (bytes: Buffer) => number | null;
}

/** Cuts a stream into its greeting, part by part as it comes, and whole frames, which `change` replaces. */
export function splitFrames(
  { greetingBytes, lengthOf }: Framing,
  change: (frame: Buffer) => readonly Buffer[],
): (chunk: Buffer) => Buffer[] {
  let rest = Buffer.alloc(0);
  let numGreeted = 0;
  return (chunk) => {
    // Each end may wait for the start of the other's greeting before it sends the rest.
    const greeting = chunk.subarray(0, greetingBytes - numGreeted);
    numGreeted += greeting.length;
    rest = Buffer.concat([rest, chunk.subarray(greeting.length)]);
    const out: Buffer[] = [greeting];
    for (;;) {
      const length = lengthOf(rest);
      if (length === null || rest.length < length) return out;
      out.push(...change(Buffer.from(rest.subarray(0, length))));
      rest = rest.subarray(length);
    }
  };
}
