/** Memory is counted as native takes it, and a model that does not fit is refused before a byte of it is read. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { LLM, type LLMOptions } from '../../rank/index.ts';
import { buildProgram, cpuStepBytes, cpuWeightBytes, readModel } from '../../rank/model/index.ts';
import { runJob } from '../helpers/gang.ts';
import { goldenNames, goldenPath } from '../helpers/goldens.ts';
import { headerOf, safetensors, smallLlama } from '../helpers/model-folder.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const options: LLMOptions = { device: 'cpu', maxNumBatchedTokens: 4096, maxNumSeqs: 8, numThreads: 1, kvCacheMemoryBytes: 2 ** 22 };

/** Compares what is computed with what `shards` of a load report. */
function checkShards(t: Test, path: string, shards: LLM['shards'], dtype: 'float32' | 'bfloat16', maxModelLen: number): void {
  const model = readModel(path);
  const sizes = { blockSize: 32, numBlocks: 1, maxModelLen, maxNumSeqs: 8, maxNumBatchedTokens: 4096, maxNumLogitRows: 128 };
  const frame = { ...sizes, worldSize: shards.length, dtype, kvCacheDtype: dtype, sampleVocabSize: model.config.vocabSize };
  for (const { rank, weightBytes, scratchBytes } of shards) {
    const program = buildProgram(model, { ...frame, rank });
    const { held, mapped } = cpuWeightBytes(program);
    t.equal(held + mapped, weightBytes, `${path}: weights of rank ${rank} of ${shards.length}`);
    const ratio = cpuStepBytes(program, rank, shards.length) / scratchBytes;
    t.ok(ratio > 0.99 && ratio <= 1, `${path}: buffers of rank ${rank} of ${shards.length}: ${ratio}`);
  }
}

t.test('weights are counted to the byte, buffers of a step nearly so', async (t) => {
  const paths = [story, ...goldenNames.map(goldenPath)];
  for (const [i, path] of paths.entries()) {
    const dtype = i % 2 === 0 ? 'float32' : 'bfloat16';
    const llm = await LLM.load(path, { ...options, dtype });
    checkShards(t, path, llm.shards, dtype, llm.options.maxModelLen);
    await llm.close();
  }
});

t.test('and so are those of shards, of uneven ones too', async (t) => {
  const path = goldenPath('smollm-nine-heads-bf16');
  const { loads } = await runJob(7, [{ model: path, options: { ...options, dtype: 'float32' }, rounds: [] }]);
  checkShards(t, path, loads[0]?.shards ?? [], 'float32', readModel(path).config.contextLengths.default);
});

/** A folder whose weights, mostly holes, claim terabytes. */
function hugeModel(t: Test): string {
  const [hidden, intermediate, numLayers] = [2 ** 15, 2 ** 20, 8];
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': [40, hidden],
    'model.norm.weight': [hidden],
    'lm_head.weight': [40, hidden],
  };
  for (let layer = 0; layer < numLayers; layer++) {
    for (const name of ['input_layernorm', 'post_attention_layernorm']) shapes[`model.layers.${layer}.${name}.weight`] = [hidden];
    for (const name of ['q', 'k', 'v', 'o']) shapes[`model.layers.${layer}.self_attn.${name}_proj.weight`] = [hidden, hidden];
    for (const name of ['gate', 'up']) shapes[`model.layers.${layer}.mlp.${name}_proj.weight`] = [intermediate, hidden];
    shapes[`model.layers.${layer}.mlp.down_proj.weight`] = [hidden, intermediate];
  }
  const folder = mkdtempSync(join(tmpdir(), 'nds-huge-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const sizes = { hidden_size: hidden, intermediate_size: intermediate, num_hidden_layers: numLayers };
  const config = { ...smallLlama, ...sizes, num_attention_heads: 256, num_key_value_heads: 256 };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const header = headerOf(shapes);
  const start = safetensors(header, { dataBytes: 0 });
  const file = openSync(join(folder, 'model.safetensors'), 'w');
  writeSync(file, start);
  ftruncateSync(file, start.length + Math.max(...Object.values(header).map(({ data_offsets }) => data_offsets[1])));
  closeSync(file);
  return folder;
}

t.test('a checkpoint of terabytes is refused at once, by part, without memory', async (t) => {
  const folder = hugeModel(t);
  const small = await LLM.load(story, options);
  await small.close();
  const peak = () => process.resourceUsage().maxRSS;
  const [before, start] = [peak(), performance.now()];
  await t.rejects(LLM.load(folder, { device: 'cpu' }), {
    code: 'ERR_SYSTEM',
    message:
      /^Expected \d+ GiB of memory on node 0 for rank 0 \(weights \d+ GiB, buffers of a step [\d.]+ GiB, one KV block [\d.]+ GiB\) but received [\d.]+ GiB, what is free of [\d.]+ GiB; what would fit: a machine with that much$/,
  });
  t.ok(performance.now() - start < 5000, 'at once');
  t.ok(peak() / before < 1.25, `${peak()} kB after, ${before} before`);
  const again = await LLM.load(story, options);
  t.match((await again.generate({ promptTokenIds: [1] }, { maxTokens: 1 })).outputs[0].tokenIds.length, 1, 'another loads afterwards');
  await again.close();
});
