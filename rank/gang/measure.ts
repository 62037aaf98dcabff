/** What a rank can load into, measured whenever rank 0 asks before a load. */
import { totalmem } from 'node:os';
import { NdsError } from '../../protocol/errors.ts';
import type { MemoryReport } from '../../protocol/messages.ts';
import { deviceOfRank } from '../cuda-devices.ts';
import { freeMemoryBytes } from '../free-memory.ts';
import { native } from '../native.ts';
import type { RankPlace } from './place.ts';

/**
 * Memory of the rank's device on CUDA, else of its host.
 * @throws NdsError `ERR_UNSUPPORTED` where the rank has no usable device, with the reason.
 */
export function measureMemory(device: 'cpu' | 'cuda', { groupRank, localRank }: Pick<RankPlace, 'groupRank' | 'localRank'>): MemoryReport {
  const host = `node ${groupRank}`;
  if (device === 'cpu') return { place: host, totalBytes: totalmem(), freeBytes: freeMemoryBytes() };
  const { device: own, reason } = deviceOfRank(native().cudaInfo(localRank), localRank);
  if (own === null) throw new NdsError('ERR_UNSUPPORTED', `Expected a CUDA device for device 'cuda' but received none: ${reason}`);
  // A device that does not say what it has free has nothing to give.
  return { place: `${host}, device ${own.pciBusId}`, totalBytes: own.totalBytes, freeBytes: own.freeBytes ?? 0 };
}
