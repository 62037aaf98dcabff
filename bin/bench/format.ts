/** Words and numbers of a bench report, shared by its renderers. Pure. */
import type { BenchModel, BenchRecord, BenchRun, LimitShare, Spread } from './record.ts';

/** Three significant digits, and no fewer than the integer part has; thousands with commas. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const decimals = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  const [whole = '', fraction] = value.toFixed(Math.min(decimals, 6)).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** `4 KiB`, `1.5 MiB`; whole bytes below 1 KiB. */
export function bytesInWords(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 1024 ** power).toFixed(power === 0 ? 0 : 2))} ${units[power]}`;
}

/** `min–max`; empty for one round. */
export function rangeOf({ values, min, max }: Spread): string {
  return values.length < 2 ? '' : `${digits(min)}–${digits(max)}`;
}

/** `0.83 of 45.1 GB/s`. */
export function limitInWords({ unit, share, probe }: LimitShare): string {
  return `${share.median.toFixed(2)} of ${digits(probe.median / 1e9)} G${unit === 'B/s' ? unit : unit.toUpperCase().replace('/S', '/s')}`;
}

/** Title cells of a report's table. */
export const columnTitles = ['', 'median', 'unit', 'min–max', 'of bandwidth', 'of arithmetic'] as const;

/** `[numColumns]` cells of one record. */
export function cellsOf({ name, value, unit, limits }: BenchRecord): string[] {
  const limit = (kind: LimitShare['kind']) => {
    const found = limits.find((one) => one.kind === kind);
    return found === undefined ? '' : limitInWords(found);
  };
  return [name, digits(value.median), unit, rangeOf(value), limit('bandwidth'), limit('arithmetic')];
}

/** Version and machine, in two lines or three. */
export function runLines({ engine, version, commit, node, machine, cuda }: BenchRun): string[] {
  const lines = [
    `${engine} ${version}${commit === null ? '' : ` (${commit})`}, Node ${node}`,
    `${machine.processor}, ${machine.cores} cores, ${machine.isa}, ${bytesInWords(machine.memoryBytes)}`,
  ];
  if (cuda === null) return lines;
  const versions = cuda.isEmulated
    ? 'emulated: times say nothing of a GPU'
    : `CUDA ${cuda.runtimeVersion}, driver for ${cuda.driverVersion}`;
  return [...lines, `${cuda.devices.join(', ')}, ${versions}`];
}

/** The model, its types and its bytes, in one line. */
export function modelLine(model: BenchModel): string {
  const isAsStored = model.quantization === 'none' || model.quantization === 'expand';
  const weights = `${model.storedDtype} weights${isAsStored ? '' : ` as ${model.quantization}`}`;
  return (
    `${model.name}${model.isSynthetic ? ' (random weights)' : ''}: ${weights} of ${bytesInWords(model.weightBytes)}, ` +
    `${model.dtype} activations, ${model.kvCacheDtype} KV cache, loaded in ${model.loadSeconds.toFixed(2)} s`
  );
}

/** Ranks, threads and rounds, in one line. */
export function roundsLine({ numRanks, numThreads, numWarmups, numRounds }: BenchRecord): string {
  const plural = (count: number, word: string) => `${count} ${word}${count === 1 ? '' : 's'}`;
  const ranks = `${plural(numRanks, 'rank')}${numThreads === null ? '' : ` of ${plural(numThreads, 'thread')}`}`;
  return `${ranks}; medians of ${plural(numRounds, 'round')} after ${plural(numWarmups, 'warm-up')}`;
}

/**
 * Records in groups that share machine, model and counts: a heading says these once.
 * @returns each group's lines and records, in order of appearance.
 */
export function groupsOf(records: readonly BenchRecord[]): { readonly lines: string[]; readonly records: BenchRecord[] }[] {
  const groups = new Map<string, { readonly lines: string[]; readonly records: BenchRecord[] }>();
  for (const record of records) {
    const model = record.model === null ? [] : [modelLine(record.model)];
    const lines = [...runLines(record.run), ...model, roundsLine(record)];
    const key = lines.join('\n');
    const group = groups.get(key) ?? { lines, records: [] };
    groups.set(key, group);
    group.records.push(record);
  }
  return [...groups.values()];
}
