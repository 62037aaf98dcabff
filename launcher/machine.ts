/** Resources of this machine: GPUs available to ranks, and its out-of-memory kills. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type CgroupSource, cgroupsOf, readText } from '../protocol/cgroups.ts';
import type { Environment } from '../protocol/rank-env.ts';

/** Identifiers of the GPUs that ranks may use: `CUDA_VISIBLE_DEVICES` where it is set, else every `/dev/nvidia<N>`. */
export function visibleGpus(env: Environment, devices: readonly string[] = listDevices()): readonly string[] {
  const visible = env['CUDA_VISIBLE_DEVICES'];
  if (visible === undefined) {
    const numGpus = devices.filter((name) => /^nvidia\d+$/.test(name)).length;
    return Array.from({ length: numGpus }, (_, index) => String(index));
  }
  const names = visible.split(',').map((name) => name.trim());
  // CUDA stops at the first invalid device.
  const end = names.findIndex((name) => name === '' || name.startsWith('-') || name === 'NoDevFiles');
  return end === -1 ? names : names.slice(0, end);
}

/** A count of the kernel's, and the file that holds it. */
export interface KernelCount {
  readonly count: number;
  readonly file: string;
}

/** Out-of-memory kills, of this cgroup and in v2 those below it where they are counted, else on this machine; null where unknown. */
export function outOfMemoryKills(source?: CgroupSource, machineCounters = '/proc/vmstat'): KernelCount | null {
  const ofCgroups = cgroupsOf('memory', source).map(({ version, folders: [own = ''] }) =>
    join(own, version === 1 ? 'memory.oom_control' : 'memory.events'),
  );
  for (const file of [...ofCgroups, machineCounters]) {
    const count = /^oom_kill (\d+)$/m.exec(readText(file) ?? '')?.[1];
    if (count !== undefined) return { count: Number(count), file };
  }
  return null;
}

function listDevices(): string[] {
  try {
    return readdirSync('/dev');
  } catch {
    return [];
  }
}
