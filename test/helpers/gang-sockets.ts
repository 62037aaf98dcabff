/** Sockets between ranks, with all ends in one process. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { curveKeyPair } from 'zeromq';
import type { GangInfo } from '../../protocol/control.ts';
import type { NdsError } from '../../protocol/errors.ts';
import { FollowerLink, type Received } from '../../rank/gang/follower-link.ts';
import { type GroupOptions, ProcessGroup } from '../../rank/gang/process-group.ts';
import { readPorts } from '../../rank/gang/transport.ts';

export const identity = { version: '1.2.3', isa: 'avx2', cudaBuild: 'none' };

/** `[worldSize]` what each rank of an epoch is told: over ipc, or over TCP at `address`. */
export function makeGang(t: Test, worldSize: number, address: string | null = null, epoch = 0): GangInfo[] {
  const runDir = mkdtempSync(join(tmpdir(), 'nds-group-'));
  t.teardown(() => rmSync(runDir, { recursive: true, force: true }));
  const keys = Array.from({ length: worldSize }, () => curveKeyPair());
  const publicKeys = keys.map(({ publicKey }) => publicKey);
  return keys.map((pair) => {
    const nodes = address && { addresses: [address], localAddr: address, commKey: '', curve: { ...pair, publicKeys } };
    return { epoch, runDir, shmPath: null, nodes: nodes || null };
  });
}

export const envOf = (rank: number, worldSize: number, startupTimeoutMs = 20_000) => ({
  rank,
  worldSize,
  groupRank: 0,
  startupTimeoutMs,
  shutdownTimeoutMs: 20_000,
});

/** Rank 0's sockets, and the ports once they are bound; `null` over ipc. */
export function openGroup(t: Test, gang: GangInfo, worldSize: number, options: Partial<GroupOptions> & { timeoutMs?: number } = {}) {
  let onPorts = (_: string) => {};
  const published = new Promise<string>((resolve) => {
    onPorts = resolve;
  });
  const onError = (error: NdsError) => {
    throw error;
  };
  const env = envOf(0, worldSize, options.timeoutMs);
  const group = new ProcessGroup({ env, gang, publish: (_, value) => onPorts(value), onError, ...options });
  t.teardown(() => group.close());
  return { group, ports: gang.nodes === null ? Promise.resolve(null) : published.then((text) => readPorts(text, worldSize)) };
}

export async function take(link: FollowerLink, count: number): Promise<Received[]> {
  const received: Received[] = [];
  for await (const message of link.messages()) if (received.push(message) === count) break;
  return received;
}

/** All ends, connected. */
export async function connect(t: Test, worldSize: number, address: string | null = null) {
  const gangs = makeGang(t, worldSize, address);
  const { group, ports: bound } = openGroup(t, gangs[0] as GangInfo, worldSize);
  const meeting = group.meet(identity);
  const ports = await bound;
  const gone: number[] = [];
  let onGone = () => {};
  const links = gangs.slice(1).map((gang, i) => {
    const onLeaderGone = () => {
      if (!gone.includes(i)) gone.push(i);
      onGone();
    };
    return new FollowerLink({ env: envOf(i + 1, worldSize), gang, ports, identity, onLeaderGone });
  });
  t.teardown(() => {
    for (const link of links) link.close();
  });
  await meeting;
  const allGone = async () => {
    while (gone.length < links.length) {
      await new Promise<void>((resolve) => {
        onGone = resolve;
      });
    }
  };
  return { gangs, group, links, ports, allGone };
}
