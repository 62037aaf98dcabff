/** TLS by a key that both ends have: how it is set up, and what a failure means. */
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { deferred } from '../../protocol/deferred.ts';
import { NdsError } from '../../protocol/errors.ts';
import { Channel } from './channel.ts';

/**
 * TLS 1.3 with an external PSK (RFC 8446, 4.2.11), and an exchange of ephemeral keys with it: who learns the token later
 * reads nothing of before. There are no certificates. OpenSSL takes such a key with SHA-256 only.
 */
export const tlsOptions = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const;

/** Sent in the clear, and no secret. */
export const tokenIdentity = 'nano-dist-spec';

export interface Destination {
  readonly host: string;
  readonly port: number;
  /** Address that the connection begins at; null = the system chooses. */
  readonly localAddress: string | null;
}

/**
 * Connects to node 0.
 *
 * @throws NdsError `ERR_MISMATCH` where node 0 has another token; else what went wrong, which may pass.
 */
export async function dial(
  { host, port, localAddress }: Destination,
  key: Buffer,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Channel> {
  const local = localAddress === null ? {} : { localAddress, family: isIP(localAddress) };
  const pskCallback = () => ({ psk: key, identity: tokenIdentity });
  // Called for a certificate only.
  const checkServerIdentity = () => new Error('a certificate in place of the token');
  const socket = connect({ host, port, ...local, ...tlsOptions, pskCallback, checkServerIdentity });
  try {
    await connected(socket, timeoutMs, signal);
    return new Channel(socket);
  } catch (error) {
    socket.on('error', () => {}).destroy();
    throw isOtherToken(error) ? otherToken(`${host}:${port}`) : error;
  }
}

function connected(socket: TLSSocket, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = deferred<void>();
  const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
  const abort = (): void => reject(signal.reason);
  signal.addEventListener('abort', abort);
  const onClose = (): void => reject(new Error('the connection was ended'));
  socket.once('secureConnect', resolve).once('error', reject).once('close', onClose);
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    socket.off('error', reject).off('close', onClose);
  });
}

/** Node 0's alert when the key does not fit: decrypt_error, or illegal_parameter up to Node 20. */
function isOtherToken(error: unknown): boolean {
  const { code = '', message = '' } = error as NodeJS.ErrnoException;
  return /^ERR_SSL_.*ALERT_(?:DECRYPT_ERROR|ILLEGAL_PARAMETER)$/.test(code) || /SSL alert number (?:47|51)\b/.test(message);
}

function otherToken(node: string): NdsError {
  return new NdsError('ERR_MISMATCH', `Expected the token of node 0 at ${node} but received another: all nodes need one --token-file`);
}
