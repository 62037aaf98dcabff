/**
 * Probes CUDA in a separate process: no context is left behind, and a driver that hangs or crashes takes nothing with
 * it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { UsableDevices } from '../launcher/plan.ts';
import { usableDevices } from '../rank/cuda-devices.ts';
import { addonFiles, type CudaBuild, type CudaInfo } from '../rank/native.ts';

const probeTimeoutMs = 60_000;

export interface CudaReport {
  /** Expected path of nds_cuda.so. */
  readonly path: string;
  readonly build: CudaBuild | null;
  /** Null where the library is missing or does not answer. */
  readonly info: CudaInfo | null;
  /** Why no device can be used; null where one can. */
  readonly reason: string | null;
}

/** Probes the CUDA backend, if there is one. The addon must exist. */
export function probeCuda(): CudaReport {
  const { addon, cuda: path, cudaBuild: build } = addonFiles();
  if (!existsSync(path)) return { path, build, info: null, reason: whyMissing(path, build) };
  const program = 'process.stdout.write(JSON.stringify(require(process.argv[1]).cudaInfo()))';
  const { NODE_OPTIONS: _, ...env } = process.env;
  const child = spawnSync(process.execPath, ['-e', program, addon], { env, encoding: 'utf8', timeout: probeTimeoutMs });
  if (child.status !== 0) {
    const ending = child.error?.message ?? (child.stderr.trim() || `it ended with ${child.signal ?? child.status}`);
    return { path, build, info: null, reason: `Expected an answer of the CUDA backend but received: ${ending}` };
  }
  const info = JSON.parse(child.stdout) as CudaInfo;
  return { path, build, info, reason: usableDevices(info).reason };
}

function whyMissing(path: string, build: CudaBuild | null): string {
  if (build === null) return `Expected the CUDA backend at ${path} but it was never built`;
  if (build.failure !== null) return `Expected the CUDA backend at ${path} but its build failed: ${firstError(build.failure)}`;
  return `Expected the CUDA backend at ${path} but it was left out: nvcc was not found, or NDS_CUDA was off`;
}

/** The first error line of a compiler's output, else its last line. */
function firstError(text: string): string {
  const lines = text.trimEnd().split('\n');
  return lines.find((line) => /\b(?:fatal|error)\b/i.test(line)) ?? lines.at(-1) ?? '';
}

/** Devices available to ranks. The emulated one does not count, as it must be requested by name. */
export function findUsableDevices(): UsableDevices {
  const { info, reason } = probeCuda();
  if (info === null) return { devices: [], reason };
  if (info.isEmulated) return { devices: [], reason: "Expected a GPU but received the emulated device, which takes device: 'cuda'" };
  const usable = usableDevices(info);
  return { devices: usable.devices.map(({ name, pciBusId }) => `${name} at ${pciBusId}`), reason: usable.reason };
}
