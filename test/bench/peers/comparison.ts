/** What a comparison found: one record for a cell of the table, complete without the others. Pure. */
import { meanContext } from '../../../bin/bench/cases.ts';
import { digits } from '../../../bin/bench/format.ts';
import {
  type BenchModel,
  type BenchRun,
  benchSchema,
  type LimitShare,
  limitShare,
  type Spread,
  spreadOf,
} from '../../../bin/bench/record.ts';
import type { Sizes } from '../../../bin/bench/shapes.ts';
import { bytesRead, type Format, peerFormats } from './gguf-model.ts';
import type { PeerMeasured } from './llama-cpp.ts';
import type { OwnMeasured } from './own.ts';

/** One cell in one round, both engines in turn. Rates are tokens/s; times, of a start, are seconds. */
export interface Pair {
  readonly shape: string;
  readonly format: Format;
  /** `tg48 @ d2048`, `first token`. */
  readonly name: string;
  readonly unit: 'tokens/s' | 's';
  readonly ours: number;
  readonly peer: number;
  /** Null for a start. */
  readonly measured: OwnMeasured | null;
}

export interface Comparison {
  readonly schema: typeof benchSchema;
  readonly command: 'peers';
  readonly shape: string;
  readonly format: Format;
  readonly peerFormat: string;
  readonly name: string;
  readonly unit: 'tokens/s' | 's';
  readonly ours: Spread;
  readonly peer: Spread;
  /** `[numRounds]` how many times as fast ours is, pair by pair. */
  readonly ratio: Spread;
  /** By the probe of each pair: of bandwidth for decode, of arithmetic for prefill; null for a start. */
  readonly limits: { readonly ours: LimitShare; readonly peer: LimitShare } | null;
  readonly numRounds: number;
  readonly numThreads: number;
  readonly run: BenchRun;
  readonly peerRun: BenchRun;
  /** As loaded by ours; null for a start. */
  readonly model: BenchModel | null;
}

/** Pairs what both engines measured of the same cells. @throws RangeError for a cell that the peer has not measured. */
export function pairsOf(shape: string, format: Format, own: readonly OwnMeasured[], peer: readonly PeerMeasured[]): Pair[] {
  return own.map((measured) => {
    const { name, phase, numTokens, depth, batchSize } = measured;
    const same = peer.find(
      (one) => one.phase === phase && one.numTokens === numTokens && one.depth === depth && one.batchSize === batchSize,
    );
    if (same === undefined) throw new RangeError(`Expected ${name} of the peer but received ${JSON.stringify(peer)}`);
    const rate = spreadOf(same.tokensPerSecond).median;
    return { shape, format, name, unit: 'tokens/s', ours: measured.tokensPerSecond, peer: rate, measured };
  });
}

/** Joins the rounds of each cell, in order of appearance. */
export function compare(
  pairs: readonly Pair[],
  shapes: Readonly<Record<string, Sizes>>,
  facts: Pick<Comparison, 'numThreads' | 'run' | 'peerRun'>,
): Comparison[] {
  const cells = new Map<string, Pair[]>();
  for (const pair of pairs) {
    const key = [pair.shape, pair.format, pair.name].join();
    cells.set(key, [...(cells.get(key) ?? []), pair]);
  }
  return [...cells.values()].map((rounds) => {
    const { shape, format, name, unit, measured } = rounds[0] as Pair;
    const ratios = rounds.map(({ ours, peer }) => (unit === 's' ? peer / ours : ours / peer));
    return {
      schema: benchSchema,
      command: 'peers',
      shape,
      format,
      peerFormat: peerFormats[format],
      name,
      unit,
      ours: spreadOf(rounds.map(({ ours }) => ours)),
      peer: spreadOf(rounds.map(({ peer }) => peer)),
      ratio: spreadOf(ratios),
      limits: limitsOf(rounds, shapes[shape] as Sizes),
      numRounds: rounds.length,
      ...facts,
      model: measured?.model ?? null,
    };
  });
}

function limitsOf(rounds: readonly Pair[], sizes: Sizes): Comparison['limits'] {
  const measured = rounds.flatMap((round) => round.measured ?? []);
  const [first] = measured;
  if (first === undefined) return null;
  const { kind, unit, perToken } = first.limit;
  const probes = measured.map(({ limit }) => limit.probe);
  // Operations are the same for both; bytes are not.
  const ofPeer = kind === 'arithmetic' ? perToken : peerBytesPerToken(first, sizes, (rounds[0] as Pair).format);
  return {
    ours: limitShare(
      unit,
      perToken,
      rounds.map(({ ours }) => ours),
      probes,
    ),
    peer: limitShare(
      unit,
      ofPeer,
      rounds.map(({ peer }) => peer),
      probes,
    ),
  };
}

/** llama.cpp reads the weights once a step, and keys and values in fp16. */
function peerBytesPerToken(measured: OwnMeasured, sizes: Sizes, format: Format): number {
  const kvBytes = 2 * 2 * sizes.numLayers * sizes.numKvHeads * sizes.headDim;
  return bytesRead(sizes, format) / measured.batchSize + meanContext(measured) * kvBytes;
}

/** Title row and a row for each comparison. */
export function rowsOf(comparisons: readonly Comparison[]): string[][] {
  const title = [
    'shape',
    'weights',
    '',
    'nano-dist-spec',
    'llama.cpp',
    'unit',
    'ratio',
    'min–max',
    'ours of limit',
    "llama.cpp's of limit",
    'limit',
  ];
  const rows = comparisons.map(({ shape, format, peerFormat, name, ours, peer, unit, ratio, limits }) => [
    shape,
    `${format} / ${peerFormat}`,
    name,
    digits(ours.median),
    digits(peer.median),
    unit,
    `${ratio.median.toFixed(2)}×`,
    ratio.values.length < 2 ? '' : `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}`,
    limits === null ? '' : limits.ours.share.median.toFixed(2),
    limits === null ? '' : limits.peer.share.median.toFixed(2),
    limits === null ? '' : `${digits(limits.ours.probe.median / 1e9)} ${limits.ours.kind === 'bandwidth' ? 'GB/s' : 'GOP/s'}`,
  ]);
  return [title, ...rows];
}
