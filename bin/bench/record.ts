/** The record of one measurement: the same for every `ndsrun bench` command, and for other engines beside ours. Pure. */

/** Version of the record's fields, in every record. */
export const benchSchema = 'nds-bench/1';

/** Rounds of one quantity. Quartiles interpolate linearly between rounds. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly lowerQuartile: number;
  readonly upperQuartile: number;
  /** `[numRounds]` in order of measurement. */
  readonly values: readonly number[];
}

/** Who measured, and where. */
export interface BenchRun {
  /** `nano-dist-spec`, or a peer's name. */
  readonly engine: string;
  readonly version: string;
  /** Of a checkout; null for an installed package. */
  readonly commit: string | null;
  readonly node: string;
  readonly machine: { readonly processor: string; readonly isa: string; readonly cores: number; readonly memoryBytes: number };
  /** Devices of the ranks; null on the CPU. */
  readonly cuda: {
    readonly devices: readonly string[];
    readonly driverVersion: string;
    readonly runtimeVersion: string;
    readonly isEmulated: boolean;
  } | null;
}

/** What was measured. */
export interface BenchModel {
  /** Folder or name; the shape's name for synthetic weights. */
  readonly name: string;
  /** Random weights of a shape. */
  readonly isSynthetic: boolean;
  /** Elements of all matrices; a tied LM head counts once. */
  readonly numParameters: number;
  /** Bytes of weights that all ranks hold together, as packed. */
  readonly weightBytes: number;
  readonly kvBytesPerToken: number;
  readonly storedDtype: string;
  readonly dtype: string;
  readonly kvCacheDtype: string;
  readonly quantization: string;
  /** From the start of the load to its end. */
  readonly loadSeconds: number;
}

/** A measured peak of the machine, and what a measurement took of it. */
export interface LimitShare {
  readonly kind: 'bandwidth' | 'arithmetic';
  /** Of the probe; `op/s` counts operations on bytes, by which quantized weights are multiplied. */
  readonly unit: 'B/s' | 'flop/s' | 'op/s';
  /** Bytes read, or operations, of one token; a multiply-add is two. */
  readonly perToken: number;
  /** The probe beside each round: bytes/s or operations/s. */
  readonly probe: Spread;
  /** `[numRounds]` tokens/s × `perToken` ÷ probe of the same round. */
  readonly share: Spread;
}

/** What a detail may be. */
export type Detail = number | string | boolean | null | readonly number[];

/** One measurement, complete without the others. */
export interface BenchRecord {
  readonly schema: typeof benchSchema;
  /** `latency`, `throughput`, `accuracy`, `spec`, `kv-utilization`, `comm` or `model` (`ndsrun bench MODEL`), or another script's. */
  readonly command: string;
  /** Unique within a report: `pp512`, `tg128 @ d1024`, `all-reduce 4 KiB`. */
  readonly name: string;
  /** Records that a plot joins. */
  readonly series: string;
  /** Place in its series; null where it has none. */
  readonly x: { readonly name: string; readonly value: number } | null;
  /** `tokens/s`, `µs`, `GB/s`, `x` or `share`. */
  readonly unit: string;
  readonly value: Spread;
  readonly numWarmups: number;
  readonly numRounds: number;
  readonly limits: readonly LimitShare[];
  readonly numRanks: number;
  /** Threads of each rank; null where nothing is computed on the CPU. */
  readonly numThreads: number | null;
  readonly run: BenchRun;
  /** Null where no model is measured. */
  readonly model: BenchModel | null;
  readonly details: Readonly<Record<string, Detail>>;
}

/** A command's output. */
export interface BenchReport {
  readonly title: string;
  readonly records: readonly BenchRecord[];
  /** Further fields of the JSON object. */
  readonly extra: Readonly<Record<string, unknown>>;
}

/** The spread of at least one round. @throws RangeError for none. */
export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('Expected at least one round but received none');
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const [below, above] = [sorted[Math.floor(place)] as number, sorted[Math.ceil(place)] as number];
    return below + (above - below) * (place - Math.floor(place));
  };
  return { median: at(0.5), min: at(0), max: at(1), lowerQuartile: at(0.25), upperQuartile: at(0.75), values };
}

/** Share of a peak, round by round. `rates` and `probes` are `[numRounds]`: tokens/s, and bytes/s or operations/s. */
export function limitShare(unit: LimitShare['unit'], perToken: number, rates: readonly number[], probes: readonly number[]): LimitShare {
  const kind = unit === 'B/s' ? 'bandwidth' : 'arithmetic';
  const share = rates.map((rate, i) => (rate * perToken) / (probes[i] ?? Number.NaN));
  return { kind, unit, perToken, probe: spreadOf(probes), share: spreadOf(share) };
}
