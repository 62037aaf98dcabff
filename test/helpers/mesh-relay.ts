/** A relay between two leaders that can drop, repeat or change the frames of the one that calls. */
import type { Test } from 'tap';
import { type Framing, splitFrames, type TcpRelay, tcpRelay } from './tcp-relay.ts';

/** Of native/comm/mesh_link.h: header and MAC of a frame. */
const [headerBytes, macBytes] = [72, 16];

/** Of mesh_meeting.cc: greeting and proof of the caller, then frames with their payload's length in front. */
const framing: Framing = {
  greetingBytes: 40 + 16,
  lengthOf: (bytes) => (bytes.length < headerBytes ? null : headerBytes + bytes.readUInt32LE() + macBytes),
};

export interface MeshRelay extends TcpRelay {
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
  const relay = await tcpRelay(t, port, (client, upstream) => {
    upstream.pipe(client);
    let numFrames = 0;
    const split = splitFrames(framing, (frame) => change(frame, numFrames++));
    client.on('data', (chunk: Buffer) => split(chunk).forEach((part) => upstream.write(part)));
  });
  return {
    ...relay,
    pause: () => relay.clients.forEach((client) => client.pause()),
    resume: () => relay.clients.forEach((client) => client.resume()),
  };
}
