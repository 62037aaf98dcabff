/** The KV cache of ranks with emulated devices: what the fullest device holds, however the ranks share devices. */
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { LLMOptions } from '../../rank/index.ts';
import { buildProgram, cudaWeightBytes, kvBytesPerBlock, partition, readModel } from '../../rank/model/index.ts';
import { type Call, runJob } from '../helpers/gang.ts';
import { readGolden } from '../helpers/goldens.ts';
import { emulatedBackend, standIn } from './emulated.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const nineHeads = readGolden('smollm-nine-heads-bf16').path;
const env = { ...(await emulatedBackend()), NDS_EMULATED_DEVICES: '2', NDS_NCCL_PATH: await standIn('nccl') };
const mib = 2 ** 20;

const drafts: LLMOptions = { speculativeConfig: { model: story, numSpeculativeTokens: 3, adaptiveK: false } };

/** A load that takes its share of the device, and one request, to use the memory. */
function session(model = story, more: LLMOptions = {}) {
  const rounds: Call[][] = [[{ type: 'generate', prompt: { promptTokenIds: [1, 40, 7] }, params: { maxTokens: 2, temperature: 0 } }]];
  const options: LLMOptions = {
    device: 'cuda',
    dtype: 'float32',
    gpuMemoryUtilization: 0.9,
    maxNumSeqs: 2,
    maxNumBatchedTokens: 64,
    ...more,
  };
  return { model, options, rounds };
}

const bytesOf = (devices: readonly number[]) => ({ ...env, NDS_EMULATED_MEMORY_BYTES: devices.join() });

/** Blocks that all of `worldSize` ranks agree on, with devices of these sizes. */
async function blocksOf(t: Test, devices: readonly number[], worldSize = 2, folder = story) {
  const { loads } = await runJob(worldSize, [session(folder)], bytesOf(devices));
  const { numBlocks, shards } = loads[0] as (typeof loads)[0];
  const model = readModel(folder);
  const sizes = { blockSize: 32, numBlocks, maxModelLen: 256, maxNumSeqs: 2, maxNumBatchedTokens: 64, maxNumLogitRows: 128 };
  const options = { ...sizes, worldSize, dtype: 'float32', kvCacheDtype: 'float32', quantization: 'none', sampleVocabSize: 256 } as const;
  for (const { rank, kvBytes, weightBytes } of shards) {
    const blockBytes = kvBytesPerBlock(model.config, partition(model.config, rank, worldSize), 32, 'float32', 'cuda');
    t.equal(kvBytes, numBlocks * blockBytes, `rank ${rank} of ${worldSize} has them`);
    t.equal(weightBytes, cudaWeightBytes(buildProgram(model, { ...options, rank })), 'its weights are counted as they are');
  }
  return numBlocks;
}

t.test('the device with the least memory decides, whichever rank has it', async (t) => {
  const large = await blocksOf(t, [128 * mib, 128 * mib]);
  const small = await blocksOf(t, [64 * mib, 64 * mib]);
  t.ok(small > 0 && large > 1.5 * small);
  // The ranks' weights differ by a little.
  t.equal(Math.min(await blocksOf(t, [128 * mib, 64 * mib]), await blocksOf(t, [64 * mib, 128 * mib])), small);
});

t.test('weights of FP8 take the memory of bf16', async (t) => {
  t.ok((await blocksOf(t, [64 * mib, 64 * mib], 2, readGolden('qwen2-fp8-block-mixed').path)) > 0);
});

t.test('ranks that share a device share its memory', async (t) => {
  // Ranks 0 and 2 share device 0; rank 1 has device 1 alone.
  const alone = await blocksOf(t, [128 * mib, 40 * mib], 3, nineHeads);
  const shared = await blocksOf(t, [80 * mib, 128 * mib], 3, nineHeads);
  t.ok(alone > 0 && shared > 0);
  t.ok(Math.abs(alone - shared) / alone < 0.05, `${alone} blocks in 40 MiB, ${shared} in half of 80`);
});

t.test('a device too small for the weights, or for the bytes that are asked for, is refused with its rank', async (t) => {
  const memory = bytesOf([128 * mib, 2 * mib]);
  const refusal =
    /Expected [\d.]+ GiB of memory on node 0, device \S+ for rank 1 \(weights [\d.]+ GiB, buffers .*\) but received [\d.]+ GiB, 0.9 of 0.00195 GiB \(gpuMemoryUtilization\).*ERR_USAGE/s;
  await t.rejects(runJob(2, [session()], memory), { message: refusal });
  const asked = session(story, { kvCacheMemoryBytes: 32 * mib });
  const most = /can have of \d+ free ones on rank 1, for kvCacheMemoryBytes but received 33554432: 0.9 of 33554432 bytes.*ERR_USAGE/s;
  await t.rejects(runJob(2, [asked], bytesOf([128 * mib, 32 * mib])), { message: most });
});

t.test('a draft model that is not sharded takes its whole place on every rank', async (t) => {
  const { loads } = await runJob(2, [session(), session(story, drafts), session()], bytesOf([64 * mib, 64 * mib]));
  const [plain, both, again] = loads;
  const weights = (load: typeof plain) => load?.shards[1]?.weightBytes ?? 0;
  t.ok(weights(both) > 2 * weights(plain));
  t.ok((both?.numBlocks ?? 0) < (plain?.numBlocks ?? 0) / 2, 'and its KV as well');
  t.equal(again?.numBlocks, plain?.numBlocks, 'each load asks anew, of devices that are empty again');
});
