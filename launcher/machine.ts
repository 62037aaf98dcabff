/** Resources of this machine: cores and GPUs available to ranks, and its out-of-memory kills. */
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Environment } from '../protocol/rank-env.ts';

/** Cores that this process may use: those of its affinity mask, capped by the cgroup's quota. */
export function allowedCores(): number {
  const quota = cpuQuota(readText(join(cgroupFolder(), 'cpu.max')) ?? readText('/sys/fs/cgroup/cpu.max'));
  return Math.max(1, Math.min(availableParallelism(), quota));
}

/** Cores that `cpu.max` (`<quota|max> <period>`) allows, rounded up. */
export function cpuQuota(cpuMax: string | null): number {
  const [quota, period] = (cpuMax ?? 'max').trim().split(/\s+/).map(Number);
  if (quota === undefined || period === undefined || !(quota > 0) || !(period > 0)) return Number.POSITIVE_INFINITY;
  return Math.ceil(quota / period);
}

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

/** Out-of-memory kills, in this cgroup where it counts them, else on this machine; 0 where unknown. */
export function outOfMemoryKills(): number {
  const counters = readText(join(cgroupFolder(), 'memory.events')) ?? readText('/proc/vmstat') ?? '';
  return Number(/^oom_kill (\d+)$/m.exec(counters)?.[1] ?? 0);
}

function cgroupFolder(): string {
  const path = /^0::(.*)$/m.exec(readText('/proc/self/cgroup') ?? '')?.[1] ?? '/';
  return join('/sys/fs/cgroup', path);
}

function listDevices(): string[] {
  try {
    return readdirSync('/dev');
  } catch {
    return [];
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
