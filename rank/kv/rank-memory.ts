/** What each rank's memory leaves for KV, from what all ranks measured. Pure arithmetic. */
import type { MemoryReport } from '../../protocol/messages.ts';
import type { RankMemory } from './budget.ts';

/** The memory that one rank shares. */
interface Place {
  readonly totalBytes: number;
  /** The least that its ranks measured: the last of them saw what the others had taken. */
  readonly freeBytes: number;
  /** Ranks that share it. */
  readonly ranks: readonly number[];
}

/** `[worldSize]` on the CPU: what the rank's host has free. */
export function hostMemory(reports: readonly MemoryReport[]): RankMemory[] {
  return placesOf(reports).map(({ freeBytes, ranks }) => ({ freeMemoryBytes: freeBytes, localWorldSize: ranks.length }));
}

/**
 * `[worldSize]` on CUDA: what a share of the rank's device leaves, less what other programs have in use and what its
 * ranks need besides KV.
 * @param neededBytes - `[worldSize]` weights, activations and workspaces of each rank
 */
export function deviceMemory(reports: readonly MemoryReport[], neededBytes: readonly number[], utilization: number): RankMemory[] {
  return placesOf(reports).map(({ totalBytes, freeBytes, ranks }) => {
    const used = totalBytes - freeBytes;
    const needed = ranks.reduce((sum, rank) => sum + (neededBytes[rank] as number), 0);
    const of = ranks.length === 1 ? 'its rank' : `its ${ranks.length} ranks`;
    const origin =
      `${utilization} of ${totalBytes} bytes (gpuMemoryUtilization), less ${used} in use ` +
      `and ${needed} for weights and a step of ${of}`;
    const freeMemoryBytes = Math.max(0, Math.floor(totalBytes * utilization - used - needed));
    return { freeMemoryBytes, localWorldSize: ranks.length, origin };
  });
}

/** `[worldSize]` */
function placesOf(reports: readonly MemoryReport[]): Place[] {
  return reports.map(({ place }) => {
    const ranks = [...reports.keys()].filter((rank) => reports[rank]?.place === place);
    const least = (key: 'totalBytes' | 'freeBytes') => Math.min(...ranks.map((rank) => (reports[rank] as MemoryReport)[key]));
    return { totalBytes: least('totalBytes'), freeBytes: least('freeBytes'), ranks };
  });
}
