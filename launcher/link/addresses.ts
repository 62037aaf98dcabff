/** The addresses that nodes listen on, and which of them are this machine's. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { isAllInterfaces } from '../../protocol/addresses.ts';
import { NdsError } from '../../protocol/errors.ts';

/** An address of this machine. */
export interface OwnAddress {
  readonly address: string;
  /** Whether no other machine reaches it. */
  readonly isInternal: boolean;
}

export function ownAddresses(): OwnAddress[] {
  const all = Object.values(networkInterfaces()).flatMap((interfaces) => interfaces ?? []);
  return all.map(({ address, internal }) => ({ address, isInternal: internal }));
}

/** Addresses of a name or address. @throws the resolver's error, which may pass, as a name's address may come later. */
export async function resolveHost(host: string): Promise<readonly string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

/** Whether an address is of this machine; all of 127.0.0.0/8 is. */
export function isOwn(address: string, own: readonly OwnAddress[]): boolean {
  return isLoopback(address) || own.some((one) => one.address === address);
}

/**
 * The address that node 0 listens on, which is never that of all interfaces.
 *
 * @param host - of `--master-addr`, with the addresses that it resolves to here
 * @throws NdsError `ERR_USAGE` where none is this machine's.
 */
export function listenAddress(host: string, resolved: readonly string[], own: readonly OwnAddress[]): string {
  refuseWildcard(host, resolved, '--master-addr');
  const found = resolved.filter((address) => isOwn(address, own));
  const reached = found.find((address) => !isLoopback(address));
  if (reached !== undefined) return reached;
  const [loopback] = found;
  if (loopback === undefined) {
    throw new NdsError(
      'ERR_USAGE',
      `Expected an address of this machine, node 0, for --master-addr but received ${named(host, resolved)}; ` +
        `it has ${listOf(own)} (--local-addr names one of these where addresses are translated)`,
    );
  }
  if (isIP(host) !== 0 || host === 'localhost') return loopback;
  // Debian's /etc/hosts gives the machine's own name a loopback address.
  const external = own.filter(({ address, isInternal }) => !isInternal && isIP(address) === 4);
  if (external.length === 1 && external[0] !== undefined) return external[0].address;
  throw new NdsError(
    'ERR_USAGE',
    `Expected an address that other nodes reach for --master-addr but received ${named(host, resolved)}: ` +
      `give --local-addr one of ${listOf(own)}`,
  );
}

/** The address of `--local-addr`. @throws NdsError `ERR_USAGE` where it is not this machine's. */
export function localAddress(host: string, resolved: readonly string[], own: readonly OwnAddress[]): string {
  refuseWildcard(host, resolved, '--local-addr');
  const found = resolved.find((address) => isOwn(address, own));
  if (found !== undefined) return found;
  throw new NdsError(
    'ERR_USAGE',
    `Expected an address of this machine for --local-addr but received ${named(host, resolved)}; it has ${listOf(own)}`,
  );
}

function refuseWildcard(host: string, resolved: readonly string[], option: string): void {
  if (!resolved.some(isAllInterfaces)) return;
  throw new NdsError('ERR_USAGE', `Expected one address for ${option} but received ${host}, which is all of them`);
}

function isLoopback(address: string): boolean {
  return /^127\./.test(address) || address === '::1';
}

function named(host: string, resolved: readonly string[]): string {
  return resolved.includes(host) ? host : `${host}, which is ${resolved.join(' and ')} here`;
}

function listOf(own: readonly OwnAddress[]): string {
  return [...own]
    .sort((a, b) => Number(a.isInternal) - Number(b.isInternal))
    .map(({ address }) => address)
    .join(', ');
}
