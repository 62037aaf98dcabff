/** Where the sockets of an epoch lie, and how they are secured: ipc on one host, TCP with CURVE between hosts. */
import { isIPv4, isIPv6 } from 'node:net';
import { join } from 'node:path';
import { isAllInterfaces } from '../../protocol/addresses.ts';
import type { GangInfo } from '../../protocol/control.ts';
import { NdsError } from '../../protocol/errors.ts';

/** Key under which rank 0 publishes the TCP ports of an epoch. */
export const portsKey = 'plan-endpoint';

/** Max bytes of a message to rank 0, and of whatever a stranger sends to one of its ports. */
const maxUpBytes = 1 << 20;
/** A connection that has not proved its key within this time is closed. */
const handshakeMs = 10_000;

/** Replies of all ranks to rank 0, or plans and control messages to one rank. */
export type Channel = 'up' | `plan-${number}`;

export const planChannel = (rank: number): Channel => `plan-${rank}`;

/** One end of a channel. */
export interface End {
  readonly address: string;
  readonly options: {
    readonly ipv6?: boolean;
    readonly curveServer?: boolean;
    readonly curvePublicKey?: string;
    readonly curveSecretKey?: string;
    readonly curveServerKey?: string;
    readonly zapDomain?: string;
    readonly zapEnforceDomain?: boolean;
    readonly maxMessageSize?: number;
    readonly handshakeInterval?: number;
  };
}

/** Rank 0's end. @throws NdsError `ERR_USAGE` for an address of all interfaces. */
export function bindEnd({ runDir, nodes }: GangInfo, channel: Channel): End {
  if (nodes === null) return ipcEnd(runDir, channel);
  const { localAddr, curve } = nodes;
  if (isAllInterfaces(localAddr)) {
    throw new NdsError('ERR_USAGE', `Expected the address of one interface for --local-addr but received "${localAddr}"`);
  }
  const options = {
    ipv6: !isIPv4(localAddr),
    curveServer: true,
    curveSecretKey: curve.secretKey,
    zapDomain: channel,
    // Without an allow-list no key is admitted, rather than each.
    zapEnforceDomain: true,
    maxMessageSize: maxUpBytes,
    handshakeInterval: handshakeMs,
  };
  return { address: tcpAddress(localAddr, '*'), options };
}

/**
 * Another rank's end.
 * @param ports - as `readPorts`; null on one node
 */
export function connectEnd(
  { runDir, nodes }: GangInfo,
  channel: Channel,
  ports: ReadonlyMap<Channel, number> | null,
  groupRank: number,
): End {
  if (nodes === null) return ipcEnd(runDir, channel);
  const { curve, localAddr, addresses } = nodes;
  const host = groupRank === 0 ? localAddr : (addresses[0] as string);
  const options = {
    ipv6: !isIPv4(host),
    curvePublicKey: curve.publicKey,
    curveSecretKey: curve.secretKey,
    curveServerKey: curve.publicKeys[0] as string,
  };
  return { address: tcpAddress(host, String(ports?.get(channel))), options };
}

/** Ports as they are published: the one of `up`, then the one of each other rank's plans. */
export function writePorts(ports: ReadonlyMap<Channel, number>, worldSize: number): string {
  return channelsOf(worldSize)
    .map((channel) => ports.get(channel))
    .join(' ');
}

/** @throws NdsError `ERR_PROTOCOL` for anything but a port of each channel. */
export function readPorts(text: string, worldSize: number): ReadonlyMap<Channel, number> {
  const ports = text.split(' ').map(Number);
  const channels = channelsOf(worldSize);
  if (ports.length !== channels.length || !ports.every((port) => Number.isInteger(port) && port > 0 && port < 65_536)) {
    throw new NdsError('ERR_PROTOCOL', `Expected ${channels.length} ports of rank 0 but received "${text.slice(0, 80)}"`);
  }
  return new Map(channels.map((channel, i) => [channel, ports[i] as number]));
}

/** Port of a bound TCP endpoint. */
export function portOf(endpoint: string): number {
  return Number(endpoint.slice(endpoint.lastIndexOf(':') + 1));
}

function channelsOf(worldSize: number): Channel[] {
  return ['up', ...Array.from({ length: worldSize - 1 }, (_, i) => planChannel(i + 1))];
}

function ipcEnd(runDir: string, channel: Channel): End {
  return { address: `ipc://${join(runDir, channel)}`, options: {} };
}

function tcpAddress(host: string, port: string): string {
  return isIPv6(host) ? `tcp://[${host}]:${port}` : `tcp://${host}:${port}`;
}
