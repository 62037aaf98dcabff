/** What both sides of the meeting are called with, and what they derive from it. */
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { NdsError } from '../../protocol/errors.ts';
import type { LaunchOptions } from '../options.ts';
import { resolveHost } from './addresses.ts';
import { agreedOptions, type Hello, type NodeIdentity } from './hello.ts';
import { deriveKey, readToken } from './token.ts';

export interface LinkCall {
  readonly options: LaunchOptions;
  /** Ranks on this node. */
  readonly localWorldSize: number;
  readonly identity: NodeIdentity;
  /** What must agree beside the launcher's own options, by name. */
  readonly agreed?: Readonly<Record<string, string>> | undefined;
  /** Receives lines for the console, before and after the meeting. */
  readonly notice: (line: string) => void;
  /** Ends the wait for other nodes, e.g. on SIGINT. */
  readonly signal: AbortSignal;
}

const retryMs = 1000;

export function keyOf({ tokenFile }: LaunchOptions): Buffer {
  if (tokenFile === null) throw new NdsError('ERR_INTERNAL', 'Expected a token file on several nodes');
  return deriveKey(readToken(tokenFile), 'link', 32);
}

export function masterOf({ masterAddr, masterPort }: LaunchOptions): { host: string; port: number } {
  if (masterAddr === null || masterPort === null) throw new NdsError('ERR_INTERNAL', 'Expected a master address on several nodes');
  return { host: masterAddr, port: masterPort };
}

/** @param address - that other nodes reach this one at */
export function helloOf({ options, localWorldSize, identity, agreed }: LinkCall, address: string): Hello {
  const { nodeRank, runId } = options;
  return { ...identity, nodeRank, host: hostname(), address, runId, options: { ...agreedOptions(options, localWorldSize), ...agreed } };
}

/** Addresses of node 0. A cluster may publish its name later. @throws NdsError `ERR_USAGE` at the deadline. */
export async function resolveMaster({ options, signal }: LinkCall, deadline: number): Promise<readonly string[]> {
  const { host } = masterOf(options);
  for (;;) {
    signal.throwIfAborted();
    try {
      return await resolveHost(host);
    } catch (error) {
      if (performance.now() + retryMs >= deadline) throw unresolved('--master-addr', host, error);
    }
    await sleep(retryMs, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** Addresses of `--local-addr`. @throws NdsError `ERR_USAGE`. */
export async function resolveOwn(host: string): Promise<readonly string[]> {
  return resolveHost(host).catch((error: unknown) => {
    throw unresolved('--local-addr', host, error);
  });
}

function unresolved(option: string, host: string, error: unknown): NdsError {
  const { code, message } = error as NodeJS.ErrnoException;
  return new NdsError('ERR_USAGE', `Expected an address or a known name for ${option} but received ${host} (${code ?? message})`);
}
