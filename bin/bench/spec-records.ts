/** Records of `ndsrun bench spec`. Pure. */
import type { Result } from '../commands/bench-spec-report.ts';
import { type BenchModel, type BenchRecord, type BenchRun, benchSchema, spreadOf } from './record.ts';

interface Context {
  readonly run: BenchRun;
  readonly described: BenchModel;
  readonly numRanks: number;
  readonly numThreads: number | null;
  readonly rounds: number;
  /** The draft model, or the method. */
  readonly draft: string;
}

/** One record for each rule, number of drafts, temperature and batch size: the speed-up over plain decoding. */
export function specRecords(results: readonly Result[], context: Context): BenchRecord[] {
  return results.map((result) => {
    const { rule, k, temperature, batchSize } = result;
    const series = `${rule}, temperature ${temperature}${batchSize === 1 ? '' : `, batch ${batchSize}`}`;
    return {
      schema: benchSchema,
      command: 'spec',
      name: `${rule}, K ${k ?? 'adaptive'}, temperature ${temperature}, batch ${batchSize}`,
      series,
      x: k === null ? null : { name: 'drafts per step', value: k },
      unit: 'x',
      value: spreadOf(result.speedups),
      numWarmups: 1,
      numRounds: context.rounds,
      limits: [],
      numRanks: context.numRanks,
      numThreads: context.numThreads,
      run: context.run,
      model: context.described,
      details: {
        draft: context.draft,
        rule,
        k,
        temperature,
        batchSize,
        tokensPerSecond: result.tokensPerSecond,
        plainTokensPerSecond: result.plainTokensPerSecond,
        acceptanceRate: result.acceptanceRate,
        acceptanceRatePerPos: result.acceptanceRatePerPos,
        tokensPerStep: result.tokensPerStep,
        draftsPerStep: result.draftsPerStep,
        identicalTokens: result.identicalTokens,
      },
    };
  });
}
