/**
 * Decode and prefill of a model on a device, relative to the limits of its memory and arithmetic: `node bin/ndsrun.js
 * test/bench/gpu.ts MODEL [BATCHES] [deterministic]`. Bandwidth and peak are NDS_BENCH_GB_PER_S and NDS_BENCH_TFLOPS,
 * by default those of an H100 SXM.
 */
import { LLM, type Prompt } from 'nano-dist-spec';
import { readModel } from '../../rank/model/index.ts';

const [, , path = '', batchList = '1,8,32,256', mode = ''] = process.argv;
const batches = batchList.split(',').map(Number);
const contextLen = 512;
const numTokens = 64;
const bytesPerSecond = Number(process.env['NDS_BENCH_GB_PER_S'] ?? 3350) * 1e9;
const flopsPerSecond = Number(process.env['NDS_BENCH_TFLOPS'] ?? 989) * 1e12;

const { config, storedBytes } = readModel(path);
const loadStart = performance.now();
const llm = await LLM.load(path, {
  device: 'cuda',
  deterministic: mode === 'deterministic',
  maxModelLen: 8192,
  maxNumSeqs: Math.max(...batches),
  maxNumBatchedTokens: 8192,
  enablePrefixCaching: false,
});
const embeddingBytes = config.vocabSize * config.hiddenSize * 2;
const weightBytes = storedBytes - embeddingBytes;
const kvBytesPerToken = config.numHiddenLayers * config.numKvHeads * config.headDim * 2 * 2;
console.log(`${path}: loaded in ${((performance.now() - loadStart) / 1000).toFixed(1)} s, ${mode || 'default'} mode`);

function prompt(length: number, salt: number): Prompt {
  return { promptTokenIds: Array.from({ length }, (_, i) => (i * 7919 + salt * 104729 + 11) % (config.vocabSize - 1000)) };
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

let salt = 0;
for (const batch of batches) {
  const run = async (maxTokens: number) => {
    const prompts = Array.from({ length: batch }, () => prompt(contextLen - numTokens / 2, salt++));
    return await seconds(() => llm.generate(prompts, { temperature: 0, ignoreEos: true, maxTokens }));
  };
  await run(numTokens);
  const rounds: number[] = [];
  for (let round = 0; round < 3; round++) rounds.push((await run(numTokens)) - (await run(1)));
  const perStep = median(rounds) / (numTokens - 1);
  const floor = (weightBytes + batch * contextLen * kvBytesPerToken) / bytesPerSecond;
  console.log(
    `decode batch ${String(batch).padStart(3)}: ${(perStep * 1e6).toFixed(0).padStart(6)} us a step, ${(batch / perStep).toFixed(0).padStart(7)} tok/s, ${(floor / perStep).toFixed(2)} of the floor`,
  );
}
for (const length of [512, 4096]) {
  const params = { temperature: 0, ignoreEos: true, maxTokens: 1 };
  await llm.generate(prompt(length, salt++), params);
  const times: number[] = [];
  for (let round = 0; round < 3; round++) times.push(await seconds(() => llm.generate(prompt(length, salt++), params)));
  const { numHiddenLayers, numAttentionHeads, headDim } = config;
  const flops =
    2 * (weightBytes / 2) * length -
    2 * (embeddingBytes / 2) * (length - 1) +
    2 * numHiddenLayers * numAttentionHeads * headDim * length * length;
  const time = median(times);
  console.log(
    `prefill ${String(length).padStart(5)}: ${(time * 1e3).toFixed(2).padStart(7)} ms, ${(length / time).toFixed(0).padStart(7)} tok/s, ${(flops / time / 1e12).toFixed(0)} TFLOP/s, ${(flops / time / flopsPerSecond).toFixed(2)} of the peak`,
  );
}
await llm[Symbol.asyncDispose]();
