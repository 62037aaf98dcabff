/** What each rank's memory leaves for KV, from what all ranks measured. Pure arithmetic. */
import type { MemoryReport } from '../../protocol/messages.ts';
import type { RankMemory } from './budget.ts';
import { type Budget, gib } from './load-memory.ts';

/** The memory that one rank shares. */
interface Place {
  readonly place: string;
  readonly totalBytes: number;
  /** The least that its ranks measured: the last of them saw what the others had taken. */
  readonly freeBytes: number;
  /** Ranks that share it. */
  readonly ranks: readonly number[];
}

/**
 * `[worldSize]` on the CPU: what the rank's host has free, less what its ranks need besides KV.
 * @param neededBytes - `[worldSize]` weights and buffers of a step of each rank; null = nothing
 */
export function hostMemory(reports: readonly MemoryReport[], neededBytes: readonly number[] | null = null): RankMemory[] {
  return placesOf(reports).map(({ freeBytes, ranks }) => {
    if (neededBytes === null) return { freeMemoryBytes: freeBytes, localWorldSize: ranks.length };
    const needed = neededOf(ranks, neededBytes);
    const left = `of ${freeBytes} bytes free, less ${needed} for weights and a step of ${ranksInWords(ranks.length)}`;
    return { freeMemoryBytes: Math.max(0, freeBytes - needed), localWorldSize: ranks.length, left };
  });
}

/** What the ranks of each host can have together: what it has free. */
export function hostBudgets(reports: readonly MemoryReport[]): Budget[] {
  return distinct(reports).map(({ place, ranks, freeBytes, totalBytes }) => ({
    place,
    ranks,
    bytes: freeBytes,
    origin: `what is free of ${gib(totalBytes)}`,
  }));
}

/** What the ranks of each device can have together: a share of its memory, less what other programs have in use. */
export function deviceBudgets(reports: readonly MemoryReport[], utilization: number): Budget[] {
  return distinct(reports).map(({ place, ranks, freeBytes, totalBytes }) => {
    const used = totalBytes - freeBytes;
    const origin = `${utilization} of ${gib(totalBytes)} (gpuMemoryUtilization), less ${gib(used)} in use`;
    return { place, ranks, bytes: Math.max(0, Math.floor(totalBytes * utilization - used)), origin };
  });
}

/**
 * `[worldSize]` on CUDA: what a share of the rank's device leaves, less what other programs have in use and what its
 * ranks need besides KV.
 * @param neededBytes - `[worldSize]` weights, activations and workspaces of each rank
 */
export function deviceMemory(reports: readonly MemoryReport[], neededBytes: readonly number[], utilization: number): RankMemory[] {
  return placesOf(reports).map(({ totalBytes, freeBytes, ranks }) => {
    const used = totalBytes - freeBytes;
    const needed = neededOf(ranks, neededBytes);
    const origin =
      `${utilization} of ${totalBytes} bytes (gpuMemoryUtilization), less ${used} in use ` +
      `and ${needed} for weights and a step of ${ranksInWords(ranks.length)}`;
    const freeMemoryBytes = Math.max(0, Math.floor(totalBytes * utilization - used - needed));
    return { freeMemoryBytes, localWorldSize: ranks.length, origin };
  });
}

/** `[worldSize]` */
function placesOf(reports: readonly MemoryReport[]): Place[] {
  return reports.map(({ place }) => {
    const ranks = [...reports.keys()].filter((rank) => reports[rank]?.place === place);
    const least = (key: 'totalBytes' | 'freeBytes') => Math.min(...ranks.map((rank) => (reports[rank] as MemoryReport)[key]));
    return { place, totalBytes: least('totalBytes'), freeBytes: least('freeBytes'), ranks };
  });
}

/** Each place once, in the order of its first rank. */
function distinct(reports: readonly MemoryReport[]): Place[] {
  return placesOf(reports).filter(({ ranks }, rank) => ranks[0] === rank);
}

function neededOf(ranks: readonly number[], neededBytes: readonly number[]): number {
  return ranks.reduce((sum, rank) => sum + (neededBytes[rank] as number), 0);
}

const ranksInWords = (count: number) => (count === 1 ? 'its rank' : `its ${count} ranks`);
