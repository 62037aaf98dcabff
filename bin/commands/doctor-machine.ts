/** The machine as `ndsrun doctor` reports it. What is absent is `null` or empty, never an error. */
import { readdirSync, readFileSync, statfsSync } from 'node:fs';
import { arch, cpus, freemem, platform, release, totalmem } from 'node:os';
import { execaSync } from 'execa';
import { numUsableCores, readProcessors } from '../../protocol/processors.ts';
import { cgroupLimitBytes, freeMemoryBytes } from '../../rank/free-memory.ts';
import { native } from '../../rank/native.ts';
import { packageVersion } from '../package-files.ts';

const programTimeoutMs = 10_000;

export function inspectVersions() {
  return {
    package: packageVersion(),
    node: process.version,
    npm: run('npm', ['--version']),
    system: `${platform()} ${arch()}, ${release()}`,
  };
}

/** The processor as the native core sees it; `error` says why the core is missing. */
export function inspectCpu() {
  const processors = readProcessors();
  const { quota } = processors;
  const facts = {
    cores: cpus().length,
    allowedCores: numUsableCores(processors),
    quotaCores: Number.isFinite(quota) ? quota : null,
  };
  try {
    const { model, isas, isa } = native().cpuInfo();
    return { ...facts, model, isas, isa, error: null };
  } catch (error) {
    return { ...facts, model: cpus()[0]?.model ?? 'unknown', isas: [], isa: null, error: (error as Error).message };
  }
}

/** Reading `bytes` of memory, and fp32 arithmetic, on all allowed cores. */
export function measureSpeed(bytes: number): { readonly readBytesPerSecond: number; readonly flopsPerSecond: number } {
  const probe = native().testing['probe'] as unknown as (options: object) => ReturnType<typeof measureSpeed>;
  return probe({ numThreads: numUsableCores(readProcessors()), bytes });
}

export function inspectMemory() {
  const limit = cgroupLimitBytes();
  return {
    totalBytes: totalmem(),
    freeBytes: freemem(),
    /** What a model may take: of the free memory, what the cgroup's limit leaves. */
    availableBytes: freeMemoryBytes(),
    /** The lowest limit of the cgroups; null without one. */
    limitBytes: limit < totalmem() ? limit : null,
    shmBytes: freeIn('/dev/shm'),
  };
}

/** One line per GPU. */
export function inspectGpus(): string[] {
  const listed = run('nvidia-smi', ['--query-gpu=name,memory.total,driver_version,compute_cap', '--format=csv,noheader']);
  if (listed !== null) return listed.split('\n');
  const folder = '/proc/driver/nvidia/gpus';
  return entries(folder).map((gpu) => {
    const model = /^Model:\s*(.*)$/m.exec(read(`${folder}/${gpu}/information`) ?? '')?.[1];
    return `${model ?? 'unknown model'} at ${gpu}`;
  });
}

export function inspectTools() {
  const compilers = process.env['CXX'] ? [process.env['CXX']] : ['g++', 'clang++', 'c++'];
  const compiler = compilers.map((name) => firstLine(run(name, ['--version']))).find((version) => version !== null) ?? null;
  const nvcc = run(process.env['NVCC'] || 'nvcc', ['--version']) ?? run('/usr/local/cuda/bin/nvcc', ['--version']);
  return { compiler, cmake: firstLine(run('cmake', ['--version'])), nvcc: /release ([\d.]+)/.exec(nvcc ?? '')?.[1] ?? null };
}

/** Standard output of a program; `null` when it is missing or fails. */
export function run(program: string, args: readonly string[]): string | null {
  const { failed, stdout } = execaSync(program, args, { reject: false, stdin: 'ignore', timeout: programTimeoutMs });
  return failed || stdout.trim() === '' ? null : stdout.trim();
}

function firstLine(text: string | null): string | null {
  return text?.split('\n')[0] ?? null;
}

/** Bytes that a file in the folder may take; null without the folder. */
function freeIn(folder: string): number | null {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
