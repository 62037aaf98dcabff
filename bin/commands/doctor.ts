/** `ndsrun doctor`: what this machine has, what runs here and how fast at most, and what would make it better. */
import { join } from 'node:path';
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { exitCodes, NdsError } from '../../protocol/errors.ts';
import { packageRoot } from '../../protocol/package-root.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { listModels } from '../../rank/hub/list-models.ts';
import type { CudaInfo } from '../../rank/native.ts';
import { type CudaReport, probeCuda } from '../cuda-probe.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { findLibraries, type LibraryReport, withOpened } from './doctor-libraries.ts';
import { inspectCpu, inspectGpus, inspectMemory, inspectTools, inspectVersions, measureSpeed } from './doctor-machine.ts';
import { type ModelNeeds, needsOf } from './doctor-models.ts';
import { judge, probeBytes, type Verdict, verdictLines } from './doctor-verdict.ts';

/** A missing part. */
export interface Missing {
  readonly what: string;
  /** What is unavailable without it. */
  readonly effect: string;
  readonly remedy: string;
  /** Whether nothing works without it. */
  readonly isFatal: boolean;
}

/** The findings of `ndsrun doctor`. */
export interface DoctorReport {
  readonly versions: ReturnType<typeof inspectVersions>;
  readonly cpu: ReturnType<typeof inspectCpu>;
  readonly memory: ReturnType<typeof inspectMemory>;
  readonly gpus: ReturnType<typeof inspectGpus>;
  readonly cuda: CudaReport;
  readonly libraries: readonly LibraryReport[];
  readonly tools: ReturnType<typeof inspectTools>;
  /** Null without a native core. */
  readonly speed: ReturnType<typeof measureSpeed> | null;
  readonly models: readonly ModelNeeds[];
  readonly missing: readonly Missing[];
  readonly verdict: Verdict;
}

const specs = {
  json: { value: null, parse: flag, help: 'print the report as JSON' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'ndsrun doctor [options]',
  description:
    'Shows what this machine has, which models run on it, and what would make it better. Ends with 70 when the native core cannot run.',
  examples: ['ndsrun doctor', 'ndsrun doctor --json'],
  specs,
  stopAtOperand: false,
};

/** Min shared memory, in which ranks exchange activations; a container often has 64 MiB. */
const smallestShmBytes = 32 * 2 ** 20;

/** @returns 0, or the exit code of `ERR_NATIVE` when nothing could run here. */
export async function doctor(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected no arguments for doctor but received ${operands.join(' ')}`);
  const report = inspect();
  process.stdout.write(options.json ? `${publicJson(report, 2)}\n` : formatDoctor(report));
  return report.missing.some(({ isFatal }) => isFatal) ? exitCodes.ERR_NATIVE : 0;
}

function inspect(): DoctorReport {
  const cpu = inspectCpu(); // builds the core where it is missing, which the CUDA backend needs
  const cuda = probeCuda();
  const found = {
    versions: inspectVersions(),
    cpu,
    memory: inspectMemory(),
    gpus: inspectGpus(),
    cuda,
    libraries: withOpened(findLibraries(process.env), cuda.info?.libraries ?? []),
    tools: inspectTools(),
  };
  const speed = cpu.error === null ? measureSpeed(probeBytes) : null;
  const models = listModels().map(needsOf);
  const findings = { ...found, speed, models, missing: findMissing(found) };
  return { ...findings, verdict: judge(findings) };
}

/** The missing parts. Pure. */
export function findMissing({
  cpu,
  memory,
  gpus,
  cuda,
  libraries,
  tools,
}: Omit<DoctorReport, 'speed' | 'models' | 'missing' | 'verdict'>): Missing[] {
  const missing: Missing[] = [];
  if (cpu.error !== null) {
    const remedy =
      tools.compiler === null ? 'install one: apt-get install g++ cmake, dnf install gcc-c++ cmake, or xcode-select --install' : cpu.error;
    const what = tools.compiler === null ? 'a C++20 compiler' : 'a working native core';
    missing.push({ what, effect: 'nothing can be computed', remedy, isFatal: true });
  }
  if (tools.compiler !== null && tools.cmake === null) {
    missing.push({
      what: 'CMake',
      effect: 'the compiler is called directly instead',
      remedy: 'optional: apt-get install cmake',
      isFatal: false,
    });
  }
  if (memory.shmBytes === null) {
    missing.push({
      what: '/dev/shm',
      effect: 'ranks share memory in a file of the temporary folder',
      remedy: 'mount a tmpfs there',
      isFatal: false,
    });
  } else if (memory.shmBytes < smallestShmBytes) {
    const remedy = 'give the container more, e.g. docker run --shm-size=1g';
    missing.push({ what: 'space in /dev/shm', effect: 'several ranks may not start', remedy, isFatal: false });
  }
  if (gpus.length === 0) return missing;
  if (cuda.reason !== null || cuda.info?.isEmulated) {
    const what = 'a CUDA backend for these GPUs';
    missing.push({ what, effect: 'they are not used', remedy: cudaRemedy(cuda, tools.nvcc !== null), isFatal: false });
  }
  for (const { name, path, effect, remedy } of libraries) if (path === null) missing.push({ what: name, effect, remedy, isFatal: false });
  return missing;
}

/** How to get a CUDA backend, given why there is none. */
function cudaRemedy({ build, info, reason }: CudaReport, hasNvcc: boolean): string {
  if (info !== null && !info.isEmulated) return reason ?? '';
  const program = `node ${join(packageRoot(), 'bin', 'ndsrun.js')}`;
  const toolkit = hasNvcc ? '' : 'install the CUDA toolkit, or name its nvcc in NVCC; then ';
  const why = build?.failure ? `${reason}; ` : '';
  return `${why}${toolkit}${program} build --cuda`;
}

/** The report as text. */
export function formatDoctor(report: DoctorReport): string {
  const { versions, cpu, memory, gpus, cuda, libraries, tools, verdict } = report;
  const gibibytes = (bytes: number | null): string => (bytes === null ? 'none' : `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  const limit = memory.limitBytes === null ? '' : `, limited to ${gibibytes(memory.limitBytes)}`;
  const quota = cpu.quotaCores === null ? '' : `, by a quota of ${cpu.quotaCores}`;
  const rows: [string, string][] = [
    ['nano-dist-spec', versions.package],
    ['node, npm', `${versions.node}, ${versions.npm ?? 'no npm'}`],
    ['system', versions.system],
    ['processor', `${cpu.model}, ${cpu.allowedCores} of ${cpu.cores} cores may be used${quota}`],
    ['instructions', cpu.error === null ? `${cpu.isas.join(', ')} (in use: ${cpu.isa})` : `unknown: ${cpu.error}`],
    ['memory', `${gibibytes(memory.totalBytes)}, ${gibibytes(memory.freeBytes)} free${limit}`],
    ['/dev/shm', memory.shmBytes === null ? 'none' : `${gibibytes(memory.shmBytes)} free`],
    ['GPUs', gpus.length === 0 ? 'none' : gpus.join('; ')],
    ['nds_cuda.so', describeBackend(cuda)],
    ...(cuda.info === null ? [] : describeCuda(cuda.info, gibibytes)),
    ...libraries.map(({ name, path, version, reason }): [string, string] => [
      name,
      path === null ? `not found${reason === null ? '' : `: ${reason}`}` : `${version ?? 'version unknown'}, ${path}`,
    ]),
    ['compiler', tools.compiler ?? 'not found'],
    ['cmake', tools.cmake ?? 'not found'],
    ['nvcc', tools.nvcc ?? 'not found'],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(16)}${value}`);
  return `${[...lines, '', ...verdictLines(verdict, report)].join('\n')}\n`;
}

/** The build and path of the backend, or why it cannot be used. */
function describeBackend({ path, build, info, reason }: CudaReport): string {
  const archs = build === null ? '' : build.archs.map((arch) => arch.replace(/(.)$/, '.$1')).join(', ');
  const how = info?.isEmulated ? 'for the emulated device, which is for tests' : `by nvcc${archs === '' ? '' : ` for ${archs} and newer`}`;
  if (info === null) return `not available: ${reason}`;
  return `built ${how}, ${path}${reason === null ? '' : `; not usable: ${reason}`}`;
}

function describeCuda({ driverVersion, runtimeVersion, devices }: CudaInfo, gibibytes: (bytes: number) => string): [string, string][] {
  const driver = driverVersion === '' ? 'no driver' : `driver for ${driverVersion}`;
  const versions: [string, string] = ['CUDA', `${driver}, built with ${runtimeVersion}`];
  const rows = devices.map(({ name, pciBusId, computeCapability, numMultiprocessors, totalBytes }, i): [string, string] => [
    `device ${i}`,
    `${name} at ${pciBusId}, capability ${computeCapability}, ${numMultiprocessors} multiprocessors, ${gibibytes(totalBytes)}`,
  ]);
  return [versions, ...rows];
}
