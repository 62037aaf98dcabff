/** What the findings of `ndsrun doctor` come to: what runs here, how fast at most, and what would make it better. Pure. */
import type { DoctorReport } from './doctor.ts';
import { integersText, type ModelNeeds } from './doctor-models.ts';

/** Bytes that the measurement of memory reads: weights of fewer may stay in the processor's caches, and decode faster. */
export const probeBytes = 256e6;

export interface FittingModel extends ModelNeeds {
  readonly fits: boolean;
  /** Upper bound of decode at batch 1, memory bandwidth / bytes of weights read; null where it bounds nothing. */
  readonly tokensPerSecondLimit: number | null;
}

export interface Verdict {
  /** What computes; null when nothing can. */
  readonly device: 'cpu' | 'cuda' | null;
  /** Memory for weights and KV cache, of the host or of all devices. */
  readonly availableBytes: number;
  readonly models: readonly FittingModel[];
  readonly improvements: readonly string[];
}

type Findings = Omit<DoctorReport, 'verdict'>;

export function judge(findings: Findings): Verdict {
  const { cpu, cuda, memory, speed, models } = findings;
  const usesCuda = cuda.info !== null && !cuda.info.isEmulated && cuda.reason === null;
  const device = cpu.error !== null ? null : usesCuda ? 'cuda' : 'cpu';
  const deviceBytes = (cuda.info?.devices ?? []).reduce((sum, { totalBytes, freeBytes }) => sum + (freeBytes ?? totalBytes), 0);
  const availableBytes = device === 'cuda' ? deviceBytes : memory.availableBytes;
  const judged = models.map((model) => ({
    ...model,
    fits: model.refused === null && model.neededBytes <= availableBytes,
    tokensPerSecondLimit:
      device !== 'cpu' || speed === null || model.readBytes < probeBytes ? null : speed.readBytesPerSecond / model.readBytes,
  }));
  return { device, availableBytes, models: judged, improvements: improve(findings, judged, availableBytes) };
}

function improve({ cpu, missing }: Findings, models: readonly FittingModel[], availableBytes: number): string[] {
  const tooLarge = models.filter(({ fits, refused }) => !fits && refused === null);
  const least = tooLarge.sort((a, b) => a.neededBytes - b.neededBytes)[0];
  return [
    ...missing.map(({ what, effect, remedy }) => `${what}: without it ${effect}; ${remedy}`),
    ...(least === undefined ? [] : [`${gibibytes(least.neededBytes - availableBytes)} more free memory: ${least.name} would fit`]),
    ...(cpu.isa === null ? [] : (processorAdvice[cpu.isa] ?? [])),
  ];
}

/** By the instruction set in use. */
const processorAdvice: Readonly<Record<string, readonly string[]>> = {
  portable: ['a processor with AVX2 or AVX-512: this one computes without vectors of its own'],
  avx2: ['a processor with AVX-512: vectors of twice the width, which prompts gain from'],
  avx512: ['a processor with AVX-512 BF16: bf16 models compute prompts in bf16 there, and in fp32 here'],
};

/** The report's last lines. */
export function verdictLines({ device, availableBytes, models, improvements }: Verdict, { cpu, cuda, speed }: Findings): string[] {
  const width = Math.max(0, ...models.map(({ name }) => name.length));
  const listed = models.filter(({ refused }) => refused === null).map((model) => `  ${model.name.padEnd(width)}  ${describe(model)}`);
  const refused = models.filter((model) => model.refused !== null).map(({ name, refused }) => `  ${name.padEnd(width)}  ${refused}`);
  const measured =
    speed === null
      ? []
      : [`Now, memory is read at ${giga(speed.readBytesPerSecond)} GB/s, arithmetic runs at ${giga(speed.flopsPerSecond)} GFLOP/s.`];
  const where = device === 'cuda' ? `${cuda.info?.devices.length} GPUs` : `${cpu.allowedCores} cores with ${cpu.isa}`;
  const runs = `Verdict: models whose weights and KV cache take at most ${gibibytes(availableBytes)} run here, on ${where}.`;
  return [
    ...measured,
    ...(listed.length === 0 ? [] : ['', 'Models here:', ...listed]),
    ...(refused.length === 0 ? [] : ['', 'Not supported:', ...refused]),
    '',
    device === null ? 'Verdict: nothing can be computed here yet.' : runs,
    ...(improvements.length === 0
      ? []
      : [device === null ? 'It needs' : 'It would be better with', ...improvements.map((line) => `  ${line}`)]),
    ...(device === null ? [] : [nextStep(models)]),
  ];
}

function describe({ weightBytes, neededBytes, quantizedBytes, fits, tokensPerSecondLimit, integers }: FittingModel): string {
  const stored = integersText(integers);
  const lighter = Object.entries(quantizedBytes ?? {}).filter(([, bytes]) => bytes < weightBytes);
  const details = [
    ...(stored === '' ? [] : [`packed as ${stored}`]),
    ...lighter.map(([quantization, bytes]) => `${gibibytes(bytes)} as ${quantization}`),
  ];
  const size = `${gibibytes(weightBytes).padStart(9)} of weights${details.length === 0 ? '' : ` (${details.join('; ')})`}`;
  if (!fits) return `${size}, does not fit: needs ${gibibytes(neededBytes)}`;
  if (tokensPerSecondLimit === null) return `${size}, fits`;
  return `${size}, fits, at most ${tokensPerSecondLimit.toPrecision(2)} tokens/s at batch 1 (memory bandwidth / weights)`;
}

/** The largest model that fits is the one to try. */
function nextStep(models: readonly FittingModel[]): string {
  const [largest] = models.filter(({ fits }) => fits).sort((a, b) => b.weightBytes - a.weightBytes);
  return largest === undefined
    ? 'Next: ndsrun generate MODEL "Once upon a time"'
    : `Next: ndsrun generate ${largest.name} "Once upon a time"`;
}

function giga(value: number): string {
  return String(Number((value / 1e9).toPrecision(3)));
}

function gibibytes(bytes: number): string {
  return bytes < 2 ** 30 / 10 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
