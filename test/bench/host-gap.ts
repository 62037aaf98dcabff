/**
 * Time that rank 0's executor waits for the host between two steps, with and without asynchronous scheduling: `ndsrun
 * --nproc-per-node=2 test/bench/host-gap.ts [MODEL [ROUNDS]]`.
 *
 * The two alternate in one run, since the machine's other load changes from minute to minute.
 */
import { fileURLToPath } from 'node:url';
import { type HistogramSnapshot, LLM, quantile } from 'nano-dist-spec';

const [model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url)), numRounds = '5'] = process.argv.slice(2);
const batchSizes = [1, 8];
const maxTokens = 128;

interface Measurement {
  readonly asyncScheduling: boolean;
  readonly batchSize: number;
  readonly meanGap: number;
  readonly medianGap: number;
  readonly meanStep: number;
  /** Share of the time from the first step to the last that is spent outside the executor. */
  readonly share: number;
}

/** The observations between two snapshots of a histogram. */
function difference(after: HistogramSnapshot, before: HistogramSnapshot): HistogramSnapshot {
  const counts = after.counts.map((count, i) => count - (before.counts[i] as number));
  return { ...after, count: after.count - before.count, sum: after.sum - before.sum, counts };
}

async function measure(llm: LLM, asyncScheduling: boolean, batchSize: number): Promise<Measurement> {
  const prompts = Array.from({ length: batchSize }, (_, i) => ({ promptTokenIds: [1, i + 2, i + 3] }));
  const generate = () => llm.generate(prompts, { temperature: 0, maxTokens, ignoreEos: true });
  await generate();
  const before = llm.stats().histograms;
  await generate();
  const after = llm.stats().histograms;
  const gap = difference(after.hostGap, before.hostGap);
  const step = difference(after.step, before.step);
  return {
    asyncScheduling,
    batchSize,
    meanGap: gap.sum / gap.count,
    medianGap: quantile(gap, 0.5) ?? 0,
    meanStep: step.sum / step.count,
    share: gap.sum / (gap.sum + step.sum),
  };
}

const measurements: Measurement[] = [];
let numRanks = 0;
for (let round = 0; round < Number(numRounds); round++) {
  for (const asyncScheduling of [false, true]) {
    await using llm = await LLM.load(model, { asyncScheduling, maxModelLen: 256, maxNumSeqs: 8 });
    numRanks = llm.shards.length;
    for (const batchSize of batchSizes) measurements.push(await measure(llm, asyncScheduling, batchSize));
  }
}

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] as number;
console.log(`${model}, ${numRanks} ${numRanks === 1 ? 'rank' : 'ranks'}, medians of ${numRounds} rounds of ${maxTokens} steps`);
for (const batchSize of batchSizes) {
  for (const asyncScheduling of [false, true]) {
    const rounds = measurements.filter((m) => m.batchSize === batchSize && m.asyncScheduling === asyncScheduling);
    const of = (key: 'meanGap' | 'medianGap' | 'meanStep' | 'share') => median(rounds.map((round) => round[key]));
    const microseconds = (key: 'meanGap' | 'medianGap' | 'meanStep') => (of(key) * 1e6).toFixed(0).padStart(5);
    console.log(
      `${`batch ${batchSize}, ${asyncScheduling ? 'next step sent while one runs' : 'one step at a time'}`.padEnd(40)}` +
        `waits ${microseconds('meanGap')} µs (median ${microseconds('medianGap')}) a step of ${microseconds('meanStep')} µs: ` +
        `${(of('share') * 100).toFixed(1)} % of the time`,
    );
  }
}
