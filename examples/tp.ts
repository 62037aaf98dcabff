/** Tensor parallelism at work: `ndsrun --nproc-per-node=2 examples/tp.ts [MODEL] [PROMPT]` streams text, then shows which rank held what. */
import { fileURLToPath } from 'node:url';
import { LLM, type ShardReport } from 'nano-dist-spec';

const [model = fileURLToPath(new URL('models/story-5m', import.meta.url)), prompt = 'Once upon a time'] = process.argv.slice(2);

await using llm = await LLM.load(model);

// What stands after the first load runs on rank 0 only.
process.stdout.write(prompt);
const start = performance.now();
let firstTokenAt = start;
let numTokens = 0;
for await (const { text, tokenIds } of llm.stream(prompt, { maxTokens: 200, temperature: 0 })) {
  if (numTokens === 0) firstTokenAt = performance.now();
  numTokens += tokenIds.length;
  process.stdout.write(text);
}
const end = performance.now();
console.log('\n');

const range = ([begin, end]: readonly [number, number]) => (begin === end ? 'none' : `${begin}–${end - 1}`);
const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const columns: readonly [title: string, cell: (shard: ShardReport) => string][] = [
  ['rank', ({ rank }) => String(rank)],
  ['heads', ({ heads }) => range(heads)],
  ['KV heads', ({ kvHeads }) => range(kvHeads)],
  ['MLP columns', ({ mlpColumns }) => range(mlpColumns)],
  ['vocabulary rows', ({ vocabRows }) => range(vocabRows)],
  ['weights', ({ weightBytes }) => mebibytes(weightBytes)],
  ['KV cache', ({ kvBytes }) => mebibytes(kvBytes)],
];
const rows = [columns.map(([title]) => title), ...llm.shards.map((shard) => columns.map(([, cell]) => cell(shard)))];
const widths = columns.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
for (const row of rows) console.log(row.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('   '));

const { numSteps, executeSeconds, waitSeconds, allReduceBytes } = llm.stats();
const tokensPerSecond = (numTokens - 1) / ((end - firstTokenAt) / 1000);
console.log(
  `\nfirst token after ${(firstTokenAt - start).toFixed(1)} ms, then ${tokensPerSecond.toFixed(0)} tokens per second (${llm.options.dtype})`,
);
console.log(
  `${numSteps} steps; rank 0 computed for ${(executeSeconds - waitSeconds).toFixed(2)} s and waited for other ranks for ${waitSeconds.toFixed(2)} s`,
);
console.log(
  `all-reduces: ${mebibytes(allReduceBytes)} of partial sums from rank 0, ${(allReduceBytes / numSteps / 1024).toFixed(1)} KiB a step`,
);
