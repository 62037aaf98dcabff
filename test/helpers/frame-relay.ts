/** A relay between two ZeroMQ sockets that can drop, repeat or change frames. */
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import type { Test } from 'tap';

const loopback = '127.0.0.1';

/**
 * Stands between a follower and one of rank 0's ports. `change` gets each frame of a message to the follower, after the
 * handshake, with its index.
 */
export async function relay(t: Test, port: number, change: (frame: Buffer, index: number) => readonly Buffer[]) {
  const pairs: Socket[] = [];
  const server = createServer((client) => {
    const upstream = connectTcp(port, loopback);
    pairs.push(client, upstream);
    client.pipe(upstream);
    const split = splitFrames(change);
    upstream.on('data', (chunk) => client.write(Buffer.concat(split(chunk))));
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, loopback, resolve));
  const cut = () => pairs.splice(0).forEach((socket) => socket.destroy());
  t.teardown(() => {
    cut();
    server.close();
  });
  return { port: (server.address() as { port: number }).port, cut };
}

/** ZMTP 3 (https://rfc.zeromq.org/spec/23/): a greeting of 64 bytes, then frames of flags, a length and a body. */
function splitFrames(change: (frame: Buffer, index: number) => readonly Buffer[]): (chunk: Buffer) => Buffer[] {
  let rest = Buffer.alloc(0);
  let numGreeted = 0;
  let numFrames = 0;
  return (chunk) => {
    // Each end waits for the start of the other's greeting before it sends the rest.
    const greeting = chunk.subarray(0, 64 - numGreeted);
    numGreeted += greeting.length;
    rest = Buffer.concat([rest, chunk.subarray(greeting.length)]);
    const out: Buffer[] = [greeting];
    while (rest.length >= 2) {
      const [flags, short] = [...rest.subarray(0, 2)] as [number, number];
      const isLong = (flags & 2) !== 0;
      if (isLong && rest.length < 9) break;
      const length = isLong ? 9 + Number(rest.readBigUInt64BE(1)) : 2 + short;
      if (rest.length < length) break;
      const isCommand = (flags & 4) !== 0;
      out.push(...(isCommand ? [rest.subarray(0, length)] : change(rest.subarray(0, length), numFrames++)));
      rest = rest.subarray(length);
    }
    return out;
  };
}
