/**
 * Throughput in nano-vllm's benchmark: many concurrent requests with uniformly distributed prompt and output lengths
 * and random tokens; and the same requests one at a time. `ndsrun --nproc-per-node=N test/bench/serving.ts [MODEL]
 * [NUM_REQUESTS]`
 */
import { fileURLToPath } from 'node:url';
import { LLM, type Prompt, type SamplingParams } from 'nano-dist-spec';
import { randomIntegers } from '../helpers/random.ts';

const [model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url)), count = '256'] = process.argv.slice(2);
const numRequests = Number(count);

await using llm = await LLM.load(model, { enablePrefixCaching: false });
const { maxModelLen } = llm.options;
// nano-vllm draws lengths from 100 to 1024; a shorter context scales both bounds.
const longest = Math.min(1024, Math.floor(maxModelLen / 2));
const shortest = Math.max(1, Math.round((longest * 100) / 1024));

const below = randomIntegers(20261125);
const length = () => shortest + below(longest - shortest + 1);
const requests = Array.from({ length: numRequests }, (_, i): { prompt: Prompt; params: SamplingParams } => ({
  prompt: { promptTokenIds: Array.from({ length: length() }, () => below(2000)) },
  params: { temperature: 0.6, seed: i, ignoreEos: true, maxTokens: length() },
}));
const numTokens = requests.reduce((sum, { params }) => sum + (params.maxTokens ?? 0), 0);

/** Prints wall time, and the share of it in which rank 0's executor was idle. */
async function measure(name: string, work: () => Promise<unknown>): Promise<number> {
  const before = llm.stats().executeSeconds;
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  const outside = 1 - (llm.stats().executeSeconds - before) / seconds;
  const rate = numTokens / seconds;
  console.log(
    `${name.padEnd(18)} ${seconds.toFixed(2).padStart(8)} s ${rate.toFixed(0).padStart(8)} tokens/s   ${(100 * outside).toFixed(2)} % outside the executor`,
  );
  return rate;
}

const prompts = requests.map(({ prompt }) => prompt);
const params = requests.map((request) => request.params);
console.log(
  `${numRequests} requests, ${shortest}–${longest} tokens of prompt and of output, ${numTokens} to generate, ${llm.shards.length} rank(s), ${llm.options.dtype}`,
);
await llm.generate(prompts.slice(0, 8), { temperature: 0.6, ignoreEos: true, maxTokens: 32 });
const together = await measure('all at once', () => llm.generate(prompts, params));
const alone = await measure('one at a time', async () => {
  for (const [i, prompt] of prompts.entries()) await llm.generate(prompt, params[i]);
});
console.log(`${(together / alone).toFixed(2)} times the throughput of one at a time`);
