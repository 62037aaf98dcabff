/** What a load takes of hosts and devices, from the headers of real checkpoints and memory that is invented. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { resolveKvBlocks } from '../../../rank/kv-blocks.ts';
import { kvFacts } from '../../../rank/load-needs.ts';
import { readModel } from '../../../rank/model/index.ts';
import { type LLMOptions, type LoadFacts, resolveOptions } from '../../../rank/options.ts';

const folder = (name: string) => fileURLToPath(new URL(`../../../examples/models/${name}`, import.meta.url));
const [model, other] = [readModel(folder('story-5m')), readModel(folder('story-180k'))];

/** Blocks of a load on ranks of one host, or with a device each, that have `freeBytes`. */
function blocksOf(options: LLMOptions, freeBytes: number, more: { worldSize?: number; draft?: boolean; onCuda?: boolean } = {}): number {
  const { worldSize = 1, draft = false, onCuda = false } = more;
  const facts: LoadFacts = {
    worldSize,
    contextLengths: model.config.contextLengths,
    checkpointDtype: model.storedDtype,
    isa: 'avx2',
    cuda: onCuda ? { isEmulated: true } : null,
    noCudaReason: '',
  };
  const sized = resolveOptions({ ...options, device: onCuda ? 'cuda' : 'cpu' }, facts);
  const files = { model, draftModel: draft ? other : null, sampleVocabSize: model.config.vocabSize };
  const place = (rank: number) => (onCuda ? `node 0, device ${rank}` : 'node 0');
  const memory = Array.from({ length: worldSize }, (_, rank) => ({ place: place(rank), totalBytes: 2 ** 34, freeBytes }));
  return resolveKvBlocks(options, sized, kvFacts(files, sized, facts, memory));
}

/** The least memory, in bytes, in which a load is not refused. */
function leastBytes(options: LLMOptions, more = {}): number {
  let [low, high] = [0, 2 ** 34];
  while (high - low > 1024) {
    const middle = Math.floor((low + high) / 2);
    try {
      blocksOf({ kvCacheMemoryShare: 1, ...options }, middle, more);
      high = middle;
    } catch {
      low = middle;
    }
  }
  return high;
}

t.test('weights, a step and one block are what it takes', async (t) => {
  const least = leastBytes({});
  t.ok(least > model.weightBytes, `${least} for ${model.weightBytes} of weights`);
  t.ok(leastBytes({ maxNumBatchedTokens: 64 }) < least);
  t.ok(leastBytes({ dtype: 'float32' }) > leastBytes({ dtype: 'bfloat16' }));
  t.ok(leastBytes({ kvCacheDtype: 'int8' }) < least);
  t.ok(leastBytes({ kvCacheDtype: 'float32' }) > least);
  t.ok(leastBytes({ speculativeConfig: { model: 'draft' } }, { draft: true }) > least + other.weightBytes);
  // Buffers of a step are hardly shared; with few tokens, weights are most of it.
  const few: LLMOptions = { maxNumSeqs: 1, maxNumBatchedTokens: 8 };
  const [alone, shared] = [leastBytes(few), leastBytes(few, { worldSize: 2 })];
  t.ok(shared > 0.9 * alone && shared < 1.5 * alone, `two ranks of a host share the weights: ${shared} for ${alone}`);
});

t.test('a refusal names what would fit, and what is named does', async (t) => {
  const named: [RegExp, LLMOptions][] = [
    [/maxNumBatchedTokens: 64/, { maxNumBatchedTokens: 64 }],
    [/dtype: 'bfloat16'/, { dtype: 'bfloat16' }],
    [/kvCacheDtype: 'bfloat16'/, { kvCacheDtype: 'bfloat16' }],
    [/kvCacheDtype: 'int8'/, { kvCacheDtype: 'int8' }],
    [/quantization: 'int8'/, { quantization: 'int8' }],
    [/quantization: 'int4'/, { quantization: 'int4' }],
  ];
  const options: LLMOptions = { dtype: 'float32', kvCacheMemoryShare: 1 };
  for (const [pattern, change] of named) {
    const enough = leastBytes({ ...options, ...change });
    t.throws(() => blocksOf(options, enough), { code: 'ERR_SYSTEM', message: new RegExp(`what would fit: .*${pattern.source}`) });
    t.ok(blocksOf({ ...options, ...change }, enough) >= 1);
    t.throws(() => blocksOf({ ...options, ...change }, enough - 4096), { code: 'ERR_SYSTEM' });
  }
  t.throws(() => blocksOf(options, 1000), {
    message: /received 0.000001 GiB, what is free of 16 GiB; what would fit: a machine with that much$/,
  });
});

t.test('on devices: more ranks', async (t) => {
  const options: LLMOptions = { dtype: 'float32', maxNumSeqs: 1, maxNumBatchedTokens: 16, gpuMemoryUtilization: 1 };
  const [one, two] = [1, 2].map((worldSize) => leastBytes(options, { worldSize, onCuda: true })) as [number, number];
  t.ok(two < one);
  t.throws(() => blocksOf(options, two, { onCuda: true }), {
    code: 'ERR_USAGE',
    message: /on node 0, device 0 for rank 0 \(weights .*gpuMemoryUtilization.* in use; what would fit: .*2 ranks with a device each/,
  });
});

t.test('a share of KV memory is of what the rest leaves', async (t) => {
  const [least, block] = [leastBytes({}), leastBytes({ blockSize: 64 }) - leastBytes({})];
  const blocks = blocksOf({ kvCacheMemoryShare: 0.5 }, least + 100 * block);
  t.ok(Math.abs(blocks - 50) <= 1, `${blocks} blocks`);
});
