/** Rank script of cluster-latency.ts: decodes batches of 1 and 8, and writes what it took to argv[2]. */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LLM } from '../../rank/index.ts';

export interface Decode {
  readonly batchSize: number;
  readonly tokensPerSecond: number;
  /** Of a step, which yields one token a sequence. */
  readonly secondsPerStep: number;
  /** Rank 0's wait for other ranks in a step. */
  readonly waitSecondsPerStep: number;
}

const [out = '', model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url)), numTokens = '128'] =
  process.argv.slice(2);
const llm = await LLM.load(model, { maxModelLen: 512 });
const result: Decode[] = [];
for (const batchSize of [1, 8]) {
  const prompts = Array.from({ length: batchSize }, (_, i) => ({ promptTokenIds: [1, i + 2, i + 3] }));
  const run = () => llm.generate(prompts, { temperature: 0, maxTokens: Number(numTokens), ignoreEos: true });
  await run();
  const before = llm.stats();
  const start = performance.now();
  await run();
  const seconds = (performance.now() - start) / 1000;
  const after = llm.stats();
  const numSteps = after.numSteps - before.numSteps;
  const waitSecondsPerStep = (after.waitSeconds - before.waitSeconds) / numSteps;
  result.push({
    batchSize,
    tokensPerSecond: (batchSize * Number(numTokens)) / seconds,
    secondsPerStep: seconds / numSteps,
    waitSecondsPerStep,
  });
}
await llm.close();
writeFileSync(out, JSON.stringify(result));
