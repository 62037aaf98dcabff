/** `ndsrun doctor`: what this machine has, and what is missing, with what to do about it. */
import { type CommandShape, helpFor, type OptionSpec, parseCommandLine } from '../../launcher/command-line.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { exitCodes, NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { findLibraries, type LibraryReport } from './doctor-libraries.ts';
import { inspectCpu, inspectGpus, inspectMemory, inspectTools, inspectVersions } from './doctor-machine.ts';

/** Something that is not there. */
export interface Missing {
  readonly what: string;
  /** What does not work without it. */
  readonly effect: string;
  readonly remedy: string;
  /** Whether nothing works without it. */
  readonly isFatal: boolean;
}

/** Everything that `ndsrun doctor` found. */
export interface DoctorReport {
  readonly versions: ReturnType<typeof inspectVersions>;
  readonly cpu: ReturnType<typeof inspectCpu>;
  readonly memory: ReturnType<typeof inspectMemory>;
  readonly gpus: ReturnType<typeof inspectGpus>;
  readonly libraries: readonly LibraryReport[];
  readonly tools: ReturnType<typeof inspectTools>;
  readonly missing: readonly Missing[];
}

const specs = {
  json: { value: null, parse: flag, help: 'print the report as JSON' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs> = {
  usage: 'ndsrun doctor [options]',
  description: 'Shows what this machine has and what is missing. Ends with 70 when the native core cannot run.',
  specs,
  stopAtOperand: false,
};

/** Shared memory that ranks exchange activations in; a container often has 64 MiB. */
const smallestShmBytes = 32 * 2 ** 20;

/** @returns 0, or the exit code of `ERR_NATIVE` when nothing could run here. */
export async function doctor(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(helpFor(shape));
    return 0;
  }
  const { options, operands } = parseCommandLine(shape, args);
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected no arguments for doctor but received ${operands.join(' ')}`);
  const report = inspect();
  process.stdout.write(options.json ? `${publicJson(report, 2)}\n` : formatDoctor(report));
  return report.missing.some(({ isFatal }) => isFatal) ? exitCodes.ERR_NATIVE : 0;
}

function inspect(): DoctorReport {
  const found = {
    versions: inspectVersions(),
    cpu: inspectCpu(),
    memory: inspectMemory(),
    gpus: inspectGpus(),
    libraries: findLibraries(process.env),
    tools: inspectTools(),
  };
  return { ...found, missing: findMissing(found) };
}

/** What is missing, given what was found (pure). */
export function findMissing({ cpu, memory, gpus, libraries, tools }: Omit<DoctorReport, 'missing'>): Missing[] {
  const missing: Missing[] = [];
  if (cpu.error !== null) {
    const remedy =
      tools.compiler === null ? 'install one: apt-get install g++ cmake, dnf install gcc-c++ cmake, or xcode-select --install' : cpu.error;
    const what = tools.compiler === null ? 'a C++17 compiler' : 'a working native core';
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
  for (const library of gpus.length > 0 ? libraries : []) {
    if (library.path !== null) continue;
    const effect = 'a CUDA backend could not run here';
    missing.push({ what: library.name, effect, remedy: library.remedy, isFatal: false });
  }
  return missing;
}

/** The report as text. */
export function formatDoctor({ versions, cpu, memory, gpus, libraries, tools, missing }: DoctorReport): string {
  const gibibytes = (bytes: number | null): string => (bytes === null ? 'none' : `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  const limit = memory.limitBytes === null ? '' : `, limited to ${gibibytes(memory.limitBytes)}`;
  const rows: [string, string][] = [
    ['nano-dist-spec', versions.package],
    ['node, npm', `${versions.node}, ${versions.npm ?? 'no npm'}`],
    ['system', versions.system],
    ['processor', `${cpu.model}, ${cpu.allowedCores} of ${cpu.cores} cores may be used`],
    ['instructions', cpu.error === null ? `${cpu.isas.join(', ')} (in use: ${cpu.isa})` : `unknown: ${cpu.error}`],
    ['memory', `${gibibytes(memory.totalBytes)}, ${gibibytes(memory.freeBytes)} free${limit}`],
    ['/dev/shm', gibibytes(memory.shmBytes)],
    ['GPUs', gpus.length === 0 ? 'none' : gpus.join('; ')],
    ...libraries.map(({ name, path, version }): [string, string] => [
      name,
      path === null ? 'not found' : `${version ?? 'version unknown'}, ${path}`,
    ]),
    ['compiler', tools.compiler ?? 'not found'],
    ['cmake', tools.cmake ?? 'not found'],
    ['nvcc', tools.nvcc ?? 'not found'],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(16)}${value}`);
  const tail =
    missing.length === 0 ? ['Nothing is missing.'] : missing.map(({ what, effect, remedy }) => `Missing: ${what} (${effect}). ${remedy}`);
  return `${[...lines, '', ...tail].join('\n')}\n`;
}
