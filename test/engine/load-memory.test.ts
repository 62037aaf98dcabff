/** Memory is counted as native takes it, and a model that does not fit is refused before a byte of it is read. */
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { LLM, type LLMOptions } from '../../rank/index.ts';
import { buildProgram, cpuStepBytes, cpuWeightBytes, type ProgramOptions, readModel } from '../../rank/model/index.ts';
import { native } from '../../rank/native.ts';
import { runJob } from '../helpers/gang.ts';
import { goldenNames, goldenPath } from '../helpers/goldens.ts';
import { sparseModel } from '../helpers/sparse-model.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const options: LLMOptions = { device: 'cpu', maxNumBatchedTokens: 4096, maxNumSeqs: 8, numThreads: 1, kvCacheMemoryBytes: 2 ** 22 };

type Types = Required<Pick<ProgramOptions, 'dtype' | 'quantization'>>;

/** Compares what is computed with what `shards` of a load report. */
function checkShards(t: Test, path: string, shards: LLM['shards'], types: Types, maxModelLen: number): void {
  const model = readModel(path);
  const sizes = { blockSize: 32, numBlocks: 1, maxModelLen, maxNumSeqs: 8, maxNumBatchedTokens: 4096, maxNumLogitRows: 128 };
  const frame = { ...sizes, worldSize: shards.length, ...types, kvCacheDtype: types.dtype, sampleVocabSize: model.config.vocabSize };
  for (const { rank, weightBytes, scratchBytes } of shards) {
    const program = buildProgram(model, { ...frame, rank });
    const { held, mapped } = cpuWeightBytes(program);
    t.equal(held + mapped, weightBytes, `${path}: weights of rank ${rank} of ${shards.length}`);
    const ratio = cpuStepBytes(program, rank, shards.length, native().cpuInfo().isa) / scratchBytes;
    t.ok(ratio > 0.99 && ratio <= 1, `${path}: buffers of rank ${rank} of ${shards.length}: ${ratio}`);
  }
}

t.test('weights are counted to the byte, buffers of a step nearly so', async (t) => {
  const paths = [story, ...goldenNames.map(goldenPath)];
  for (const [i, path] of paths.entries()) {
    const dtype = i % 2 === 0 ? 'float32' : 'bfloat16';
    for (const quantization of ['none', 'expand', 'int8', 'int4'] as const) {
      const llm = await LLM.load(path, { ...options, dtype, quantization });
      checkShards(t, path, llm.shards, { dtype, quantization }, llm.options.maxModelLen);
      await llm.close();
    }
  }
});

t.test('and so are those of shards, of uneven ones too', async (t) => {
  const path = goldenPath('smollm-nine-heads-bf16');
  const kinds = (['none', 'int8', 'int4'] as const).map((quantization) => ({ dtype: 'float32', quantization }) as const);
  const sessions = kinds.map((types) => ({ model: path, options: { ...options, ...types }, rounds: [] }));
  const { loads } = await runJob(7, sessions);
  for (const [i, types] of kinds.entries())
    checkShards(t, path, loads[i]?.shards ?? [], types, readModel(path).config.contextLengths.default);
});

t.test('a checkpoint of terabytes is refused at once, by part, without memory', async (t) => {
  const folder = sparseModel(t, { hiddenSize: 2 ** 15, intermediateSize: 2 ** 20, numLayers: 8, numHeads: 256 });
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
