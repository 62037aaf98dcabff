/** The processors of this process: those of its affinity mask, by core, and the time that quotas leave on them. */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type CgroupSource, cpuQuota, ownCgroups, readText } from './cgroups.ts';

/** Where the kernel says it. */
export interface ProcessorSource {
  /** Status of the process: of its first thread, which is never pinned. */
  readonly statusPath: string;
  /** Folder of the logical processors. */
  readonly cpuRoot: string;
  readonly cgroups: CgroupSource;
}

/** This process's. */
export const ownProcessors: ProcessorSource = {
  statusPath: '/proc/self/status',
  cpuRoot: '/sys/devices/system/cpu',
  cgroups: ownCgroups,
};

export interface Processors {
  /** Logical processors that the process may use, SMT siblings of one core together; ascending, as are the cores. */
  readonly cores: readonly (readonly number[])[];
  /** Processors' worth of time, a fraction perhaps; infinite without a quota. */
  readonly quota: number;
}

/** Where nothing says so, every processor is allowed and is a core. */
export function readProcessors(source: ProcessorSource = ownProcessors): Processors {
  const mask = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readText(source.statusPath) ?? '')?.[1];
  const online = listIn(join(source.cpuRoot, 'online'));
  // The mask may name processors that are offline, or that the machine could be given.
  const allowed = mask === undefined ? listOfAll() : parseList(mask).filter((processor) => online?.includes(processor) ?? true);
  const cores = new Map<number, number[]>();
  for (const processor of allowed) {
    const first = listIn(join(source.cpuRoot, `cpu${processor}`, 'topology', 'thread_siblings_list'))?.[0] ?? processor;
    cores.set(first, [...(cores.get(first) ?? []), processor]);
  }
  return { cores: [...cores.values()], quota: cpuQuota(source.cgroups) };
}

/**
 * Threads that compute all the time: one per core, as SMT siblings share its arithmetic, and no more than the quota,
 * rounded down: threads that exceed it stop in mid-step, while others wait for them. At least one.
 */
export function numUsableCores({ cores, quota }: Processors): number {
  return Math.max(1, Math.floor(Math.min(cores.length, quota)));
}

const listOfAll = () => Array.from({ length: availableParallelism() }, (_, i) => i);

/** The list in a file; undefined without one. */
function listIn(path: string): number[] | undefined {
  const text = readText(path);
  return text === undefined ? undefined : parseList(text.trim());
}

/** Numbers of a list of the kernel's such as `0-3,8`; empty for what is none. */
function parseList(list: string): number[] {
  const ranges = list.split(',').map((range) => /^(\d+)(?:-(\d+))?$/.exec(range));
  return ranges.flatMap((range) => {
    if (range === null) return [];
    const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}
