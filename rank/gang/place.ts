/** A rank's place in an epoch of its gang: who it is, and the memory that it shares with others. */
import { closeSync, openSync } from 'node:fs';
import type { GangInfo } from '../../protocol/control.ts';
import { NdsError, toNdsError } from '../../protocol/errors.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import { type MeshPlace, native } from '../native.ts';
import { Control } from './control.ts';
import { openMesh } from './mesh.ts';

export type RankPlace = Pick<
  RankEnv,
  'rank' | 'worldSize' | 'localRank' | 'localWorldSize' | 'groupRank' | 'stateFd' | 'startupTimeoutMs' | 'stepTimeoutMs'
> & {
  /** Descriptor of the memory that this host's ranks share in this epoch; -1 with one rank. */
  readonly shmFd: number;
  /** Connections to the other hosts; undefined on one node. */
  readonly mesh: MeshPlace | undefined;
};

/** A process without a launcher: one rank, nothing shared. */
export const alone: RankPlace = {
  rank: 0,
  worldSize: 1,
  localRank: 0,
  localWorldSize: 1,
  groupRank: 0,
  shmFd: -1,
  mesh: undefined,
  stateFd: -1,
  startupTimeoutMs: 600_000,
  stepTimeoutMs: 60_000,
};

/**
 * This rank's place in an epoch. Its memory stays open until the epoch is released: a runner of one that is given up may use it.
 * @param signal - ends the connections to other hosts, waiting ones too
 * @throws NdsError `ERR_SYSTEM` when the shared memory cannot be opened; else as `openMesh`.
 */
export async function openPlace(env: RankEnv, gang: GangInfo, signal: AbortSignal): Promise<RankPlace> {
  // Opened before anything is awaited: its name does not last.
  const shmFd = gang.shmPath === null ? env.shmFd : openShared(gang.shmPath);
  try {
    if (gang.nodes === null) return { ...inheritedPlace(env), shmFd };
    const opening = openMesh(env, { ...gang.nodes, epoch: gang.epoch }, Control.open(env), listen, signal);
    return { ...inheritedPlace(env), shmFd, mesh: await Promise.race([opening, untilAborted(signal)]) };
  } catch (error) {
    if (shmFd >= 0) closeSync(shmFd);
    throw error;
  }
}

/** This rank's place on one node, with the memory that it was started with. */
export function inheritedPlace(env: RankEnv): RankPlace {
  const { rank, worldSize, localRank, localWorldSize, groupRank, shmFd, stateFd, startupTimeoutMs, stepTimeoutMs } = env;
  return { rank, worldSize, localRank, localWorldSize, groupRank, shmFd, stateFd, startupTimeoutMs, stepTimeoutMs, mesh: undefined };
}

/** Rejects when the epoch is over: what other ranks were to publish never comes. */
function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const onAbort = () => reject(new NdsError('ERR_CLOSED', 'Expected to meet the other nodes but the epoch is over'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}

const listen = (localAddr: string) => native().listenMesh(localAddr);

function openShared(path: string): number {
  try {
    return openSync(path, 'r+');
  } catch (error) {
    throw toNdsError(error, 'ERR_SYSTEM');
  }
}
