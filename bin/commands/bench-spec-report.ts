/** Summary and text of an `ndsrun bench spec` run. Pure. */
import type { DraftRule } from '../../protocol/messages.ts';
import type { SpeculationStats } from '../../rank/index.ts';
import { spreadOf } from '../bench/record.ts';

/** One way to speculate: accept rule and number of drafts. */
export interface Variant {
  readonly rule: DraftRule;
  /** Drafts per step; null = adaptive. */
  readonly k: number | null;
}

/** The fields of `SpeculationStats` that can be summed. */
export type CountedDrafts = Pick<
  SpeculationStats,
  'numDraftTokens' | 'numAcceptedTokens' | 'numAcceptedTokensPerPos' | 'numStepsByNumDrafts'
>;

/** A variant's result at one temperature and batch size, in one round. */
export interface Measured extends Variant {
  readonly temperature: number;
  readonly batchSize: number;
  readonly numTokens: number;
  /** Wall time of whole requests; plain = the mean of the runs before and after. */
  readonly seconds: number;
  readonly plainSeconds: number;
  /** Statistics of each request. */
  readonly speculation: readonly CountedDrafts[];
  /** Whether tokens are identical to those of plain decoding; null where they need not be. */
  readonly identicalTokens: boolean | null;
}

/** One line of the report. */
export type Result = ReturnType<typeof summarize>;

/** Sums up one variant over the rounds, at one temperature and batch size. */
export function summarize(rounds: readonly Measured[]) {
  const [{ rule, k, temperature, batchSize, numTokens, identicalTokens }] = rounds as readonly [Measured];
  const stats = sumOf(rounds.flatMap(({ speculation }) => speculation));
  const numSteps = sum(stats.numStepsByNumDrafts);
  return {
    rule,
    k,
    temperature,
    batchSize,
    /** `[numRounds]` plain seconds ÷ speculative seconds. */
    speedups: rounds.map(({ seconds, plainSeconds }) => plainSeconds / seconds),
    /** Median over rounds of plain seconds ÷ speculative seconds. */
    speedup: median(rounds.map(({ seconds, plainSeconds }) => plainSeconds / seconds)),
    tokensPerSecond: numTokens / median(rounds.map(({ seconds }) => seconds)),
    plainTokensPerSecond: numTokens / median(rounds.map(({ plainSeconds }) => plainSeconds)),
    numDraftTokens: stats.numDraftTokens,
    ...acceptanceOf(stats),
    /** Tokens per step of a decoding sequence, steps without drafts included. */
    tokensPerStep: (numSteps + stats.numAcceptedTokens) / numSteps,
    draftsPerStep: stats.numDraftTokens / numSteps,
    identicalTokens: identicalTokens === null ? null : rounds.every((round) => round.identicalTokens),
  };
}

/**
 * Acceptance rates: of all drafts, and per position over the steps that drafted that far. Null where nothing was
 * drafted.
 */
export function acceptanceOf({ numDraftTokens, numAcceptedTokens, numAcceptedTokensPerPos, numStepsByNumDrafts }: CountedDrafts) {
  return {
    acceptanceRate: numDraftTokens === 0 ? null : numAcceptedTokens / numDraftTokens,
    acceptanceRatePerPos: numAcceptedTokensPerPos.map((count, i) => count / sum(numStepsByNumDrafts.slice(i + 1))),
  };
}

function sumOf(all: readonly CountedDrafts[]): CountedDrafts {
  return {
    numDraftTokens: sum(all.map(({ numDraftTokens }) => numDraftTokens)),
    numAcceptedTokens: sum(all.map(({ numAcceptedTokens }) => numAcceptedTokens)),
    numAcceptedTokensPerPos: sumByIndex(all.map(({ numAcceptedTokensPerPos }) => numAcceptedTokensPerPos)),
    numStepsByNumDrafts: sumByIndex(all.map(({ numStepsByNumDrafts }) => numStepsByNumDrafts)),
  };
}

/** One table per temperature: a line per rule and K, a pair of columns per batch size. */
export function tables(results: readonly Result[]): string[] {
  const batchSizes = [...new Set(results.map(({ batchSize }) => batchSize))];
  const head = ['rule', 'K', ...batchSizes.flatMap((size) => [`batch ${size}`, 'tokens/step']), 'accepted', 'by position, in %'];
  return [...new Set(results.map(({ temperature }) => temperature))].flatMap((temperature) => {
    const here = results.filter((each) => each.temperature === temperature);
    const plain = batchSizes.map((size) => {
      const speeds = here.filter(({ batchSize }) => batchSize === size).map(({ plainTokensPerSecond }) => plainTokensPerSecond);
      return `${median(speeds).toFixed(0)} at batch ${size}`;
    });
    const lines = here.filter(({ batchSize }) => batchSize === batchSizes[0]);
    const rows = lines.map((line) => lineOf(here.filter(({ rule, k }) => rule === line.rule && k === line.k)));
    return ['', `temperature ${temperature}; plain decoding, in tokens/s: ${plain.join(', ')}`, ...aligned([head, ...rows])];
  });
}

/** One variant at every batch size; the acceptance shown is that of the batch size with most drafts. */
function lineOf(results: readonly Result[]): string[] {
  const [first] = results as readonly [Result];
  const { acceptanceRate, acceptanceRatePerPos } = results.reduce((a, b) => (b.numDraftTokens > a.numDraftTokens ? b : a));
  return [
    first.rule,
    first.k === null ? 'adaptive' : `${first.k}`,
    ...results.flatMap(({ speedup, tokensPerStep }) => [`${speedup.toFixed(2)}x`, tokensPerStep.toFixed(2)]),
    acceptanceRate === null ? '-' : `${percent(acceptanceRate)} %`,
    acceptanceRatePerPos.map(percent).join(' '),
  ];
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const last = (rows[0]?.length ?? 0) - 1;
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const cellOf = (cell: string, i: number) => {
    if (i === last) return `   ${cell}`;
    return i === 0 ? cell.padEnd(widths[i] ?? 0) : `  ${cell.padStart(widths[i] ?? 0)}`;
  };
  return rows.map((row) => row.map(cellOf).join('').trimEnd());
}

function percent(share: number): string {
  return (share * 100).toFixed(0);
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

function sumByIndex(lists: readonly (readonly number[])[]): number[] {
  const longest = Math.max(0, ...lists.map(({ length }) => length));
  return Array.from({ length: longest }, (_, i) => sum(lists.map((list) => list[i] ?? 0)));
}

function median(values: readonly number[]): number {
  return spreadOf(values).median;
}
