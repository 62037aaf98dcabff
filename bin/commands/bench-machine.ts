/** What every benchmark reports about its machine, and how rounds are summed up. */
import { execFileSync } from 'node:child_process';
import { totalmem } from 'node:os';
import { native } from '../../rank/native.ts';
import { packageVersion } from '../package-files.ts';

/** Version, commit and machine, for a report; with `cuda`, the devices of `numRanks` ranks too. */
export function describeRun(device: 'cpu' | 'cuda', numRanks: number) {
  const cpu = native().cpuInfo();
  return {
    version: packageVersion(),
    commit: commit(),
    node: process.version,
    machine: { processor: cpu.model, isa: cpu.isa, cores: cpu.allowedCores, memoryBytes: totalmem() },
    cuda: device === 'cuda' ? describeCuda(numRanks) : null,
  };
}

function describeCuda(numRanks: number) {
  const { devices, driverVersion, runtimeVersion, isEmulated } = native().cudaInfo();
  return { devices: devices.slice(0, numRanks).map(({ name }) => name), driverVersion, runtimeVersion, isEmulated };
}

/** The same as text, in two lines or three. */
export function runLines({ version, commit, node, machine, cuda }: ReturnType<typeof describeRun>): string[] {
  const lines = [
    `nano-dist-spec ${version}${commit === null ? '' : ` (${commit})`}, Node ${node}`,
    `${machine.processor}, ${machine.cores} cores, ${machine.isa}`,
  ];
  if (cuda === null) return lines;
  const versions = cuda.isEmulated
    ? 'emulated: times say nothing of a GPU'
    : `CUDA ${cuda.runtimeVersion}, driver for ${cuda.driverVersion}`;
  return [...lines, `${cuda.devices.join(', ')}, ${versions}`];
}

/** The upper median; NaN for no values. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** The commit of a checkout; null for an installed package. */
function commit(): string | null {
  try {
    const folder = new URL('.', import.meta.url);
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: folder, stdio: 'pipe', encoding: 'utf8' }).trim();
  } catch {
    return null;
  }
}
