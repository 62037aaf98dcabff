/** A relay between two leaders that can drop, repeat or change the frames of the one that calls. */
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import type { Test } from 'tap';
import { loopback } from './comm-hosts.ts';

/** Of native/comm/mesh_link.h and mesh_meeting.cc: greeting and proof of the caller; header and MAC of a frame. */
const [handshakeBytes, headerBytes, macBytes] = [40 + 16, 72, 16];

export interface MeshRelay {
  readonly port: number;
  cut(): void;
  /** Holds back what the caller sends from now on. */
  pause(): void;
  resume(): void;
}

/** Stands before a leader's port. `change` gets each frame of the caller, with its index. */
export async function meshRelay(
  t: Test,
  port: number,
  change: (frame: Buffer, index: number) => readonly Buffer[] = (frame) => [frame],
): Promise<MeshRelay> {
  const sockets: Socket[] = [];
  const server = createServer((client) => {
    const upstream = connectTcp(port, loopback);
    sockets.push(client, upstream);
    upstream.pipe(client);
    const split = splitFrames(change);
    client.on('data', (chunk) => split(chunk).forEach((part) => upstream.write(part)));
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, loopback, resolve));
  const cut = () => sockets.splice(0).forEach((socket) => socket.destroy());
  t.teardown(() => {
    cut();
    server.close();
  });
  const clients = () => sockets.filter((_, i) => i % 2 === 0);
  return {
    port: (server.address() as { port: number }).port,
    cut,
    pause: () => clients().forEach((client) => client.pause()),
    resume: () => clients().forEach((client) => client.resume()),
  };
}

function splitFrames(change: (frame: Buffer, index: number) => readonly Buffer[]): (chunk: Buffer) => Buffer[] {
  let rest = Buffer.alloc(0);
  let numGreeted = 0;
  let numFrames = 0;
  return (chunk) => {
    const handshake = chunk.subarray(0, handshakeBytes - numGreeted);
    numGreeted += handshake.length;
    rest = Buffer.concat([rest, chunk.subarray(handshake.length)]);
    const out: Buffer[] = [handshake];
    while (rest.length >= headerBytes) {
      const length = headerBytes + rest.readUInt32LE() + macBytes;
      if (rest.length < length) break;
      out.push(...change(Buffer.from(rest.subarray(0, length)), numFrames++));
      rest = rest.subarray(length);
    }
    return out;
  };
}
