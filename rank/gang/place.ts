/** A rank's place in an epoch of its gang: who it is, and the memory that it shares with others. */
import { openSync } from 'node:fs';
import type { GangInfo } from '../../protocol/control.ts';
import { toNdsError } from '../../protocol/errors.ts';
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
 * This rank's place in an epoch. Its memory stays open, since a runner of an epoch that is given up may still use it.
 * @param signal - ends the connections to other hosts, waiting ones too
 * @throws NdsError `ERR_SYSTEM` when the shared memory cannot be opened; else as `openMesh`.
 */
export async function openPlace(env: RankEnv, gang: GangInfo, signal: AbortSignal): Promise<RankPlace> {
  // Opened before anything is awaited: its name does not last.
  const shmFd = gang.shmPath === null ? env.shmFd : openShared(gang.shmPath);
  const mesh =
    gang.nodes === null ? undefined : await openMesh(env, { ...gang.nodes, epoch: gang.epoch }, Control.open(env), listen, signal);
  return { ...inheritedPlace(env), shmFd, mesh };
}

/** This rank's place on one node, with the memory that it was started with. */
export function inheritedPlace(env: RankEnv): RankPlace {
  const { rank, worldSize, localRank, localWorldSize, groupRank, shmFd, stateFd, startupTimeoutMs, stepTimeoutMs } = env;
  return { rank, worldSize, localRank, localWorldSize, groupRank, shmFd, stateFd, startupTimeoutMs, stepTimeoutMs, mesh: undefined };
}

const listen = (localAddr: string) => native().listenMesh(localAddr);

function openShared(path: string): number {
  try {
    return openSync(path, 'r+');
  } catch (error) {
    throw toNdsError(error, 'ERR_SYSTEM');
  }
}
