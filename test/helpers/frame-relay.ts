/** A relay between two ZeroMQ sockets that can drop, repeat or change frames. */
import type { Test } from 'tap';
import { type Framing, splitFrames, type TcpRelay, tcpRelay } from './tcp-relay.ts';

/** ZMTP 3 (https://rfc.zeromq.org/spec/23/): a greeting of 64 bytes, then frames of flags, a length and a body. */
const zmtp: Framing = {
  greetingBytes: 64,
  lengthOf: (bytes) => {
    const [flags = 0, short = 0] = bytes;
    const isLong = (flags & 2) !== 0;
    if (bytes.length < (isLong ? 9 : 2)) return null;
    return isLong ? 9 + Number(bytes.readBigUInt64BE(1)) : 2 + short;
  },
};

/**
 * Stands between a follower and one of rank 0's ports. `change` gets each frame of a message to the follower, after the
 * handshake, with its index.
 */
export function relay(t: Test, port: number, change: (frame: Buffer, index: number) => readonly Buffer[]): Promise<TcpRelay> {
  return tcpRelay(t, port, (client, upstream) => {
    client.pipe(upstream);
    let numFrames = 0;
    const split = splitFrames(zmtp, (frame) => {
      const isCommand = ((frame[0] as number) & 4) !== 0;
      return isCommand ? [frame] : change(frame, numFrames++);
    });
    upstream.on('data', (chunk: Buffer) => client.write(Buffer.concat(split(chunk))));
  });
}
