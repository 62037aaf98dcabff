/**
 * Decode and prefill of a model on a device, relative to the limits of its memory and arithmetic: `node bin/ndsrun.js
 * test/bench/gpu.ts MODEL [BATCHES [PREFILLS [deterministic]]]`. Prints the lines that gpu-table.mjs reads.
 */
import { basename } from 'node:path';
import { LLM, type Prompt } from 'nano-dist-spec';
import { readModel } from '../../rank/model/index.ts';
import { devicePeaks, report } from './device-peaks.ts';

const [, , path = '', batchList = '1,8,32,256', prefillList = '512,4096', mode = ''] = process.argv;
const [batches, prefills] = [batchList, prefillList].map((list) => list.split(',').map(Number)) as [number[], number[]];
/** Mean context of a decode. */
const contextLen = 512;
const numTokens = Number(process.env['NDS_BENCH_TOKENS'] ?? 64);
const maxNumBatchedTokens = 8192;
const system = mode === '' ? 'nds' : `nds, ${mode}`;
const shape = basename(path);

const model = readModel(path);
const { config } = model;
const peaks = devicePeaks();
const loadStart = performance.now();
const llm = await LLM.load(path, {
  device: 'cuda',
  deterministic: mode === 'deterministic',
  maxModelLen: 8192,
  maxNumSeqs: Math.max(...batches),
  maxNumBatchedTokens,
  enablePrefixCaching: false,
});
const embeddingBytes = config.vocabSize * config.hiddenSize * 2;
const weightBytes = model.weightBytes - embeddingBytes;
const kvBytesPerToken = config.numHiddenLayers * config.numKvHeads * config.headDim * 2 * 2;
console.log(`${shape}, ${system}: loaded in ${((performance.now() - loadStart) / 1000).toFixed(1)} s`);

let salt = 0;
function prompt(length: number): Prompt {
  salt++;
  return { promptTokenIds: Array.from({ length }, (_, i) => (i * 7919 + salt * 104729 + 11) % (config.vocabSize - 10)) };
}

/** Seconds of a decode step of all sequences: while all decode, from the last one's first token to the first one's last. */
async function stepSeconds(batch: number): Promise<number> {
  let begin = 0;
  let end = Number.POSITIVE_INFINITY;
  const times: number[] = [];
  // The first sequences decode while the last are still prompts.
  const maxTokens = numTokens + Math.ceil((batch * contextLen) / maxNumBatchedTokens);
  const one = async () => {
    let isFirst = true;
    for await (const _ of llm.stream(prompt(contextLen - numTokens / 2), { temperature: 0, ignoreEos: true, maxTokens })) {
      times.push(performance.now());
      if (isFirst) begin = Math.max(begin, times.at(-1) as number);
      isFirst = false;
    }
    end = Math.min(end, performance.now());
  };
  await Promise.all(Array.from({ length: batch }, one));
  const inside = times.filter((time) => time > begin && time <= end).length;
  return (end - begin) / 1000 / (inside / batch);
}

async function prefillSeconds(length: number): Promise<number> {
  const start = performance.now();
  await llm.generate(prompt(length), { temperature: 0, ignoreEos: true, maxTokens: 1 });
  return (performance.now() - start) / 1000;
}

/** The median of three, after one to warm up. */
async function measure(once: () => Promise<number>): Promise<number> {
  await once();
  const rounds = [await once(), await once(), await once()];
  return rounds.sort((a, b) => a - b)[1] as number;
}

for (const length of prefills) {
  const seconds = await measure(() => prefillSeconds(length));
  const { numHiddenLayers, numAttentionHeads, headDim } = config;
  // Products of all rows, but of one in the LM head; causal attention.
  const flops = weightBytes * length - embeddingBytes * (length - 1) + 2 * numHiddenLayers * numAttentionHeads * headDim * length * length;
  const share = peaks === null ? null : flops / seconds / peaks.flopsPerSecond;
  report({ shape, case: `prefill ${length}`, system, tokensPerSecond: length / seconds, share });
}
for (const batch of batches) {
  await stepSeconds(batch);
  const seconds = await stepSeconds(batch);
  const floorBytes = weightBytes + batch * contextLen * kvBytesPerToken;
  const share = peaks === null ? null : floorBytes / peaks.bytesPerSecond / seconds;
  report({ shape, case: `decode ${batch}`, system, tokensPerSecond: batch / seconds, share });
}
await llm[Symbol.asyncDispose]();
