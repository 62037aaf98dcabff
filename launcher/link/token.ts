/** The job's token, a secret that all nodes share, and the keys derived from it. */
import { hkdfSync } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';

const minBytes = 16;
const maxBytes = 4096;

/**
 * Reads a token file; white space around the token does not count.
 *
 * @throws NdsError `ERR_USAGE` for a file that is missing, that other users may read or write, or whose token is too
 * short. The token is in no message.
 */
export function readToken(file: string): Buffer {
  const stats = statSync(file, { throwIfNoEntry: false });
  if (stats === undefined) throw refused('a file', file, 'none');
  if (stats.isDirectory()) throw refused('a file', file, 'a folder');
  // Its group may read it, as Kubernetes mounts a secret for a group.
  if ((stats.mode & 0o026) !== 0) {
    const mode = (stats.mode & 0o777).toString(8).padStart(4, '0');
    throw refused('a file that no other user reads or writes', file, `mode ${mode}: chmod 600 ${file}`);
  }
  if (stats.size > maxBytes) throw refused(`at most ${maxBytes} bytes`, file, `${stats.size}`);
  const token = Buffer.from(contents(file).trim());
  if (token.length < minBytes) throw refused(`a token of at least ${minBytes} bytes`, file, `one of ${token.length}`);
  return token;
}

/** A key for one purpose; who has it learns nothing of the secret or of other keys. */
export function deriveKey(secret: Uint8Array, purpose: string, numBytes: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, 'nano-dist-spec', purpose, numBytes));
}

function contents(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw refused('a file that can be read', file, (error as Error).message);
  }
}

function refused(expected: string, file: string, received: string): NdsError {
  return new NdsError('ERR_USAGE', `Expected ${expected} for --token-file ${file} but received ${received}`);
}
