/** What every benchmark reports about its machine. */
import { execFileSync } from 'node:child_process';
import { totalmem } from 'node:os';
import { native } from '../../rank/native.ts';
import type { BenchRun } from '../bench/record.ts';
import { packageVersion } from '../package-files.ts';

/** Version, commit and machine, for a report; with `cuda`, the devices of `numRanks` ranks too. */
export function describeRun(device: 'cpu' | 'cuda', numRanks: number): BenchRun {
  const cpu = native().cpuInfo();
  return {
    engine: 'nano-dist-spec',
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

/** The commit of a checkout; null for an installed package. */
function commit(): string | null {
  try {
    const folder = new URL('.', import.meta.url);
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: folder, stdio: 'pipe', encoding: 'utf8' }).trim();
  } catch {
    return null;
  }
}
