/** The side of every other node in the meeting: it finds node 0, greets it, and waits for its welcome. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isObject } from '../../protocol/checks.ts';
import { isNdsErrorCode, NdsError } from '../../protocol/errors.ts';
import { localAddress, ownAddresses } from './addresses.ts';
import { helloOf, keyOf, type LinkCall, masterOf, resolveOwn } from './call.ts';
import type { Channel, Frame } from './channel.ts';
import { dial } from './handshake.ts';
import { readWelcome } from './hello.ts';
import { NodeLink } from './node-link.ts';

const dialMs = 5000;
const minDelayMs = 100;
const maxDelayMs = 1000;

/**
 * Joins the job at node 0, which may start later.
 *
 * @throws NdsError `ERR_PEER_LOST` where node 0 is not found within `--rdzv-timeout` or says that a node did not come,
 * `ERR_MISMATCH` where token, options or versions differ; the reason of an aborted signal.
 */
export async function joinLink(call: LinkCall): Promise<NodeLink> {
  const { options, signal } = call;
  const key = keyOf(options);
  const local = options.localAddr === null ? null : localAddress(options.localAddr, await resolveOwn(options.localAddr), ownAddresses());
  const { host, port } = masterOf(options);
  const deadline = performance.now() + options.rdzvTimeoutMs;
  for (let delayMs = minDelayMs; ; delayMs = Math.min(1.5 * delayMs, maxDelayMs)) {
    signal.throwIfAborted();
    try {
      const channel = await dial({ host, port, localAddress: local }, key, dialMs, signal);
      if (await greet(channel, call)) return await welcomed(channel, call);
      throw new Error('node 0 ended the connection');
    } catch (error) {
      if (error instanceof NdsError || signal.aborted) throw error;
      if (performance.now() + delayMs >= deadline) throw notFound(call, error as NodeJS.ErrnoException);
    }
    await sleep(delayMs, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** @returns whether node 0 has taken the greeting; it drops connections when strangers flood it. */
async function greet(channel: Channel, call: LinkCall): Promise<boolean> {
  channel.startBeats(call.options.nodeTimeoutMs);
  channel.send('hello', helloOf(call, channel.localAddress));
  const frame = await nextFrame(channel, call.signal).catch((error: unknown) => {
    if (error instanceof NdsError && error.code === 'ERR_PEER_LOST') return null;
    throw error;
  });
  if (frame === null) return false;
  if (frame.type === 'refused') throw await refusal(channel, frame);
  if (frame.type !== 'waits') throw await protocolError(channel, frame);
  return true;
}

async function welcomed(channel: Channel, call: LinkCall): Promise<NodeLink> {
  let frame: Frame;
  try {
    frame = await nextFrame(channel, call.signal);
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    throw new NdsError('ERR_PEER_LOST', `Expected all nodes to meet but node 0 was lost: ${error.message}`);
  }
  if (frame.type === 'refused') throw await refusal(channel, frame);
  if (frame.type !== 'welcome') throw await protocolError(channel, frame);
  return new NodeLink(readWelcome(frame.body), new Map([[0, channel]]), () => {});
}

/** The next frame; an aborted signal ends the connection. */
async function nextFrame(channel: Channel, signal: AbortSignal): Promise<Frame> {
  const abort = (): void => channel.fail('this node was stopped');
  signal.addEventListener('abort', abort);
  try {
    return await channel.next();
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

async function refusal(channel: Channel, { body }: Frame): Promise<NdsError> {
  await channel.close();
  const { code, message } = isObject(body) ? body : { code: null, message: null };
  return new NdsError(isNdsErrorCode(code) ? code : 'ERR_PROTOCOL', typeof message === 'string' ? message : 'refused by node 0');
}

async function protocolError(channel: Channel, { type }: Frame): Promise<NdsError> {
  await channel.close();
  return new NdsError('ERR_PROTOCOL', `Expected node 0 to answer a greeting but received ${type}`);
}

function notFound({ options }: LinkCall, { code, message }: NodeJS.ErrnoException): NdsError {
  const { masterAddr, masterPort, rdzvTimeoutMs } = options;
  return new NdsError(
    'ERR_PEER_LOST',
    `Expected node 0 at ${masterAddr}, port ${masterPort}, within ${rdzvTimeoutMs / 1000} s (--rdzv-timeout) but received ${code ?? message}`,
  );
}
