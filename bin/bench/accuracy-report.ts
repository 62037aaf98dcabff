/** Records and the console table of `ndsrun bench accuracy`. Pure. */
import type { Accuracy } from './accuracy.ts';
import { bytesInWords, runLines } from './format.ts';
import { type BenchModel, type BenchRecord, type BenchReport, type BenchRun, benchSchema, spreadOf } from './record.ts';

/** One model as loaded, and how far it is from the reference. */
export interface Measured {
  /** Weights as stored, KV cache `auto`. */
  readonly isReference: boolean;
  /** `kvCacheDtype` that was asked for. */
  readonly kvCache: string;
  readonly accuracy: Accuracy;
  /** Most tokens that see one another. */
  readonly windowLen: number;
  readonly numRanks: number;
  readonly numThreads: number | null;
  readonly run: BenchRun;
  readonly model: BenchModel;
}

/** One quantity of `Accuracy`: its record's name and unit, and its text in the table. */
interface Quantity {
  readonly name: string;
  readonly unit: string;
  readonly of: (accuracy: Accuracy) => number;
  readonly text: (value: number) => string;
}

const small = (value: number) => (value === 0 ? '0' : value.toPrecision(3));

const perplexity: Quantity = {
  name: 'perplexity',
  unit: 'perplexity',
  of: (one) => one.perplexity,
  text: (value) => value.toFixed(value < 1e4 ? 4 : 0),
};
/** What a variant has beside its perplexity; zero, or all of the tokens, for the reference. */
const differences: readonly Quantity[] = [
  {
    name: 'perplexity change',
    unit: '%',
    of: (one) => 100 * (one.perplexity / one.referencePerplexity - 1),
    text: (value) => `${value < 0 ? '' : '+'}${value.toFixed(3)} %`,
  },
  { name: 'KL divergence', unit: 'nats', of: (one) => one.klDivergence, text: small },
  {
    name: 'same top token',
    unit: '% of tokens',
    of: (one) => 100 * one.topOneAgreement,
    text: (value) => `${value.toFixed(2)} %`,
  },
  { name: 'RMS error', unit: 'RMS of logits', of: (one) => one.rmsLogitError, text: small },
  { name: 'max error', unit: 'max of logits', of: (one) => one.maxLogitError, text: small },
];

/** A record for each quantity of each model. */
export function accuracyReport(measured: readonly Measured[]): BenchReport {
  return { title: 'Accuracy', records: measured.flatMap(recordsOf), extra: {} };
}

function recordsOf({ isReference, kvCache, accuracy, windowLen, numRanks, numThreads, run, model }: Measured): BenchRecord[] {
  const label = labelOf({ isReference, kvCache, model });
  return [perplexity, ...(isReference ? [] : differences)].map(({ name, unit, of }) => ({
    schema: benchSchema,
    command: 'accuracy',
    name: `${label}: ${name}`,
    series: name,
    x: null,
    unit,
    value: spreadOf([of(accuracy)]),
    numWarmups: 0,
    numRounds: 1,
    limits: [],
    numRanks,
    numThreads,
    run,
    model,
    details: { ...accuracy, windowLen, isReference },
  }));
}

/** One line for each model; errors are of its logits beside those of the first. */
export function accuracyTable({ records }: BenchReport): string {
  const [first] = records;
  if (first === undefined) throw new RangeError('Expected records but received none');
  const head = ['', 'weights', perplexity.name, ...differences.map(({ name }) => name)];
  const rows = records.filter(({ series }) => series === perplexity.name).map((record) => rowOf(record, records));
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)));
  const lineOf = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  const { numTokens, windowLen } = first.details;
  const { model } = first;
  const about = `${model?.name}: ${model?.dtype} activations, ${model?.kvCacheDtype} KV cache; ${numTokens} tokens scored, in windows of up to ${windowLen}`;
  return `${[...runLines(first.run), about, '', ...[head, ...rows].map(lineOf)].join('\n')}\n`;
}

function rowOf(record: BenchRecord, records: readonly BenchRecord[]): string[] {
  const { model } = record;
  const label = record.name.slice(0, -`: ${perplexity.name}`.length);
  const cells = differences.map(({ name, text }) => {
    const found = records.find((one) => one.name === `${label}: ${name}`);
    return found === undefined ? '' : text(found.value.median);
  });
  return [label, model === null ? '' : bytesInWords(model.weightBytes), perplexity.text(record.value.median), ...cells];
}

/** Names the KV cache where it was asked for; elsewhere it is the reference's. */
function labelOf({ isReference, kvCache, model }: Pick<Measured, 'isReference' | 'kvCache' | 'model'>): string {
  if (isReference) return `${model.storedDtype} (reference)`;
  const weights = model.quantization === 'none' || model.quantization === 'expand' ? model.storedDtype : model.quantization;
  return kvCache === 'auto' ? weights : `${weights}, KV ${kvCache}`;
}
