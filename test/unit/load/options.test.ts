/** Load options: refusals by name, and defaults from the model and the machine. */
import t from 'tap';
import { defaultNumThreads } from '../../../rank/gang/threads.ts';
import { type CudaFacts, resolveKvBlocks } from '../../../rank/kv-blocks.ts';
import { LLM } from '../../../rank/llm.ts';
import { checkOptions, type LLMOptions, type LoadFacts, resolveOptions } from '../../../rank/options.ts';

const facts: LoadFacts = {
  contextLengths: { default: 1024, max: 1024 },
  checkpointDtype: 'bfloat16',
  isa: 'avx512_bf16',
  cuda: null,
  noCudaReason: 'nothing here',
  worldSize: 2,
};

/** Blocks of two ranks, each with a host or device of its own. */
function blocksOf(options: LLMOptions, device = facts, free = [2 ** 40, 2 ** 40], cuda: CudaFacts | null = null, total = 2 ** 40): number {
  const sized = resolveOptions(options, device);
  const perToken = { float32: 400, bfloat16: 200, int8: 110 }[sized.kvCacheDtype];
  const groups = [{ name: 'the model', bytesPerBlock: [sized.blockSize * perToken, sized.blockSize * perToken * 2] }];
  const memory = free.map((freeBytes, rank) => ({ place: `place ${rank}`, totalBytes: total, freeBytes }));
  const common = { memory, groups, alternatives: () => [] };
  const none = { weightBytes: [0, 0], stepBytes: [0, 0] };
  return resolveKvBlocks(options, sized, cuda === null ? { ...common, host: none, cuda } : { ...common, host: null, cuda });
}

t.test('options that are unknown, of a wrong type or out of range are refused by name', async (t) => {
  const wrong: Record<string, unknown[]> = {
    dtype: ['float16', 'fp32', '', 4, null],
    schedulingPolicy: ['lifo', 1],
    enablePrefixCaching: ['true', 1, null],
    longPrefillTokenThreshold: [0, 1.5, '8'],
    kvCacheDtype: ['float16', 'fp8', '', 8, null],
    quantization: ['fp8', 'q4_0', '', 8, true, null],
    device: [7, null],
    generationConfig: ['vllm', '', true, null],
    blockSize: [0, 31, 33, 48, -32, 1.5, '32', null, 8192],
    kvCacheMemoryShare: [0, -0.5, 1.01, '1', Number.NaN, Number.POSITIVE_INFINITY, null],
    kvCacheMemoryBytes: [0, -1, 1.5, '1G', Number.POSITIVE_INFINITY, null],
    maxModelLen: [0, -1, 2.5, '8', Number.NaN, null],
    maxNumSeqs: [0, -1, 2.5, 2 ** 17, '8', null],
    maxNumBatchedTokens: [0, -1, 2.5, '8', null],
    numThreads: [0, -1, 1.5, 4096, '2', null],
    asyncScheduling: [0, 'true', null],
    kvDebug: [1, '1', null],
    trace: ['', 1, true, null],
    record: ['', 1, true, null],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values)
      t.throws(() => checkOptions({ [name]: value }), { code: 'ERR_USAGE', message: new RegExp(`for ${name} but received`) });
  }
  t.throws(() => checkOptions({ kvCacheMemoryBytes: 1, kvCacheMemoryShare: 1 }), { code: 'ERR_USAGE', message: /received both/ });
  t.throws(() => checkOptions({ device: 'tpu' }), {
    code: 'ERR_UNSUPPORTED',
    message: /'auto' or 'cpu' or 'cuda' for device but received "tpu"/,
  });
  t.throws(() => checkOptions({ gpuMemoryUtilization: 1.5 }), { code: 'ERR_USAGE', message: /gpuMemoryUtilization but received 1.5/ });
  t.throws(() => checkOptions({ frobnicate: 2 }), { code: 'ERR_USAGE', message: /options among dtype, .* but received 'frobnicate'/ });
  t.throws(() => checkOptions({ maxNumSeqs: 8, maxNumBatchedTokens: 4 }), {
    code: 'ERR_USAGE',
    message: /at least maxNumSeqs = 8 for maxNumBatchedTokens/,
  });
  for (const options of [null, [], 'float32', 3])
    t.throws(() => checkOptions(options), { code: 'ERR_USAGE', message: /Expected an object/ });
  t.same(checkOptions({ dtype: undefined, blockSize: 64 }), { dtype: undefined, blockSize: 64 });
});

t.test('CUDA is taken where it can be used, and refused with the reason where it cannot', async (t) => {
  const cuda = { isEmulated: false };
  t.throws(() => resolveOptions({ device: 'cuda' }, facts), { code: 'ERR_UNSUPPORTED', message: /nothing here/ });
  t.match(resolveOptions({}, { ...facts, isa: 'avx2', cuda }), { device: 'cuda', dtype: 'bfloat16' });
  t.match(resolveOptions({ device: 'cpu' }, { ...facts, isa: 'avx2', cuda }), { device: 'cpu', dtype: 'float32' });
  t.match(
    resolveOptions({}, { ...facts, cuda: { ...cuda, isEmulated: true } }),
    { device: 'cpu' },
    'an emulated device is asked for by name',
  );
  t.match(resolveOptions({ device: 'cuda' }, { ...facts, cuda: { ...cuda, isEmulated: true } }), { device: 'cuda' });
  // The KV cache gets the rest of the share after weights; memory used by others counts against the share.
  const most = { device: 'cuda', kvCacheMemoryShare: 1, enablePrefixCaching: true } as const;
  const needs = { weightBytes: [16e9, 16e9], logitsPerRow: 1000, activationBytesPerToken: 1000, isEmulated: false };
  const onCuda = { ...facts, cuda };
  const numBlocks = blocksOf(most, onCuda, [79e9, 79e9], needs, 80e9);
  const bytes = numBlocks * 32 * 200 * 2;
  t.ok(bytes > 53e9 && bytes < 55.1e9, `${bytes} bytes of 80e9 * 0.9 - 1e9 - 16e9`);
  t.throws(() => blocksOf({ ...most, gpuMemoryUtilization: 0.1 }, onCuda, [79e9, 79e9], needs, 80e9), { code: 'ERR_USAGE' });
  t.equal(blocksOf(most, onCuda, [79e9, 78e9], needs, 80e9), numBlocks - Math.ceil(1e9 / 12_800), 'the fuller device decides');
});

t.test('defaults', async (t) => {
  t.same(resolveOptions({}, facts), {
    dtype: 'bfloat16',
    kvCacheDtype: 'bfloat16',
    quantization: 'none',
    device: 'cpu',
    deterministic: false,
    blockSize: 32,
    maxModelLen: 1024,
    maxNumSeqs: 64,
    maxNumBatchedTokens: 1024,
    maxNumLogitRows: 128,
    enablePrefixCaching: true,
    schedulingPolicy: 'fcfs',
    longPrefillTokenThreshold: 512,
    generationConfig: 'auto',
    numThreads: null,
    asyncScheduling: true,
    speculativeConfig: null,
  });
  t.equal(blocksOf({}), 64 * 32);
});

t.test('dtype is bfloat16 only for a bfloat16 checkpoint on a processor that has the instructions', async (t) => {
  for (const isa of ['avx512', 'neon', 'portable']) t.equal(resolveOptions({ dtype: 'auto' }, { ...facts, isa }).dtype, 'float32');
  for (const isa of ['amx', 'neon_bf16']) t.equal(resolveOptions({ dtype: 'auto' }, { ...facts, isa }).dtype, 'bfloat16');
  t.equal(resolveOptions({}, { ...facts, checkpointDtype: 'float16' }).dtype, 'float32');
  t.equal(resolveOptions({ dtype: 'bfloat16' }, { ...facts, isa: 'portable', checkpointDtype: 'float32' }).dtype, 'bfloat16');
});

t.test('the KV cache has the dtype of activations, that of a bfloat16 checkpoint, or what was asked for', async (t) => {
  t.match(resolveOptions({ dtype: 'float32' }, facts), { dtype: 'float32', kvCacheDtype: 'float32' });
  t.match(resolveOptions({ kvCacheDtype: 'auto' }, facts), { dtype: 'bfloat16', kvCacheDtype: 'bfloat16' });
  t.match(resolveOptions({ kvCacheDtype: 'int8' }, facts), { dtype: 'bfloat16', kvCacheDtype: 'int8' });
  t.equal(blocksOf({ kvCacheDtype: 'int8', kvCacheMemoryBytes: 32 * 220 * 7 }), 7);
  const noBf16 = { ...facts, isa: 'avx2' };
  t.match(resolveOptions({}, noBf16), { dtype: 'float32', kvCacheDtype: 'bfloat16' });
  t.match(resolveOptions({ dtype: 'float32' }, noBf16), { kvCacheDtype: 'float32' }, 'float32 was asked for');
  for (const checkpointDtype of ['float32', 'float16']) {
    t.match(resolveOptions({}, { ...noBf16, checkpointDtype }), { dtype: 'float32', kvCacheDtype: 'float32' });
  }
  t.match(resolveOptions({ dtype: 'float32', kvCacheDtype: 'bfloat16' }, facts), { dtype: 'float32', kvCacheDtype: 'bfloat16' });
  t.match(resolveOptions({ kvCacheDtype: 'float32' }, noBf16), { dtype: 'float32', kvCacheDtype: 'float32' });
  const onCuda = { ...facts, cuda: { isEmulated: false } };
  t.match(resolveOptions({}, onCuda), { dtype: 'bfloat16', kvCacheDtype: 'bfloat16' });
  t.match(resolveOptions({ dtype: 'float32' }, onCuda), { kvCacheDtype: 'float32' });
  const refused: readonly (readonly [LLMOptions, LoadFacts, RegExp])[] = [
    [{ kvCacheDtype: 'float32' }, facts, /^Expected 'bfloat16' or 'int8' for kvCacheDtype beside bfloat16 activations but .* 'float32'$/],
    [{ dtype: 'float32', kvCacheDtype: 'bfloat16' }, onCuda, /^Expected 'float32' or 'int8' for .* on CUDA but received 'bfloat16'$/],
  ];
  for (const [options, where, message] of refused) t.throws(() => resolveOptions(options, where), { code: 'ERR_UNSUPPORTED', message });
});

t.test('weights are quantized on request, the draft model as the target unless it says otherwise, and on the CPU alone', async (t) => {
  const draft = (quantization?: 'none' | 'int4') => ({ speculativeConfig: { model: 'folder', quantization } });
  t.match(resolveOptions({ quantization: 'int4' }, facts), { quantization: 'int4', dtype: 'bfloat16', speculativeConfig: null });
  t.match(resolveOptions({ quantization: 'int8', ...draft() }, facts), { speculativeConfig: { quantization: 'int8' } });
  t.match(resolveOptions({ quantization: 'int8', ...draft('none') }, facts), { speculativeConfig: { quantization: 'none' } });
  const onCuda = { ...facts, cuda: { isEmulated: false } };
  const refused: readonly (readonly [LLMOptions, RegExp])[] = [
    [{ quantization: 'int8' }, /^Expected 'none' or 'expand' for quantization on CUDA but received 'int8', which needs device: 'cpu'$/],
    [draft('int4'), /^Expected 'none' or 'expand' for speculativeConfig\.quantization on CUDA but received 'int4'/],
  ];
  for (const [options, message] of refused) t.throws(() => resolveOptions(options, onCuda), { code: 'ERR_UNSUPPORTED', message });
  for (const quantization of ['none', 'expand'] as const)
    t.match(resolveOptions({ quantization }, onCuda), { device: 'cuda', quantization });
  t.match(resolveOptions({ device: 'cpu', quantization: 'int8' }, onCuda), { device: 'cpu', quantization: 'int8' });
});

t.test('blocks: the rank with the largest decides, and none that could never be used is made', async (t) => {
  const numBlocks = (options: LLMOptions, free?: number[]) => blocksOf({ dtype: 'float32', ...options }, facts, free);
  t.equal(numBlocks({ kvCacheMemoryBytes: 32 * 800 * 10 + 5 }), 10);
  t.equal(numBlocks({ kvCacheMemoryBytes: 64 * 800 * 10, blockSize: 64 }), 10);
  const few = { maxModelLen: 33, maxNumSeqs: 3 };
  t.equal(numBlocks(few), 6, 'three sequences of two blocks');
  t.equal(numBlocks({ ...few, kvCacheMemoryBytes: 32 * 800 * 99, enablePrefixCaching: false }), 6);
  t.equal(numBlocks({ ...few, kvCacheMemoryBytes: 32 * 800 * 99 }), 99, 'the prefix cache has a use for more');
  const free = 32 * 800 * 400;
  t.equal(numBlocks({}, [free, free]), 100, 'a quarter of what is free');
  t.equal(numBlocks({ kvCacheMemoryShare: 0.5 }, [free, free]), 200, 'half of what is free');
  t.equal(numBlocks({}, [free / 4, free]), 50, 'rank 0 has less, and blocks half as large');
  t.throws(() => numBlocks({ kvCacheMemoryBytes: 25_599 }), {
    code: 'ERR_USAGE',
    message: 'Expected at least 25600 bytes, one block, for kvCacheMemoryBytes but received 25599',
  });
});

t.test('limits follow each other', async (t) => {
  t.match(resolveOptions({ maxNumBatchedTokens: 16 }, facts), { maxNumSeqs: 16, maxNumBatchedTokens: 16 });
  t.match(resolveOptions({ maxNumSeqs: 2000 }, facts), { maxNumSeqs: 2000, maxNumBatchedTokens: 2000, maxNumLogitRows: 2000 });
  const longer = { ...facts, contextLengths: { default: 512, max: 2048 } };
  t.equal(resolveOptions({}, longer).maxModelLen, 512);
  t.equal(resolveOptions({ maxModelLen: 2048 }, longer).maxModelLen, 2048);
  t.throws(() => resolveOptions({ maxModelLen: 1025 }, facts), {
    code: 'ERR_USAGE',
    message: /at most 1024, the longest context/,
  });
});

t.test('threads come from OMP_NUM_THREADS, else from the cores', async (t) => {
  t.equal(defaultNumThreads(undefined, 6), 6);
  t.equal(defaultNumThreads('', 6), 6);
  t.equal(defaultNumThreads('3', 6), 3);
  t.equal(defaultNumThreads('4,2', 6), 4);
  for (const text of ['0', '-1', 'all', '1.5', ',2', '99999']) {
    t.throws(() => defaultNumThreads(text, 6), { code: 'ERR_USAGE', message: new RegExp(`for OMP_NUM_THREADS but received "${text}"`) });
  }
});

t.test('a share is above 0 and up to 1, and not beside bytes', async (t) => {
  for (const share of [1e-9, 0.25, 1]) checkOptions({ kvCacheMemoryShare: share });
  checkOptions({ kvCacheMemoryBytes: 5 });
  checkOptions({});
  for (const share of [0, -1, 1.0001, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => checkOptions({ kvCacheMemoryShare: share }), { code: 'ERR_USAGE', message: /for kvCacheMemoryShare but received/ });
  }
  t.throws(() => checkOptions({ kvCacheMemoryBytes: 5, kvCacheMemoryShare: 0.5 }), {
    code: 'ERR_USAGE',
    message: 'Expected kvCacheMemoryBytes or kvCacheMemoryShare but received both, 5 and 0.5',
  });
});

t.test('other spellings and names of other tools are answered', async (t) => {
  const cases: [options: object, message: RegExp][] = [
    [{ max_model_len: 9 }, /Expected the load option maxModelLen, in camel case, but received 'max_model_len'$/],
    [{ gpu_memory_utilization: 0.5 }, /the load option gpuMemoryUtilization, in camel case/],
    [{ tensor_parallel_size: 2 }, /Expected a known load option but received 'tensor_parallel_size': it is ndsrun --nproc-per-node$/],
    [{ tensorParallelSize: 2 }, /it is ndsrun --nproc-per-node$/],
    [{ maxModelLength: 9 }, /received 'maxModelLength' \(did you mean maxModelLen\?\)$/],
    [{ n_ctx: 9 }, /it is maxModelLen$/],
    [{ temperature: 1 }, /it is the sampling parameter temperature, and --temperature of ndsrun generate$/],
    [{ trust_remote_code: true }, /no code of a model is ever run$/],
    [{ dtype: 'bf16' }, /for dtype but received "bf16" \(did you mean 'bfloat16'\?\)$/],
    [{ dtype: 'torch.float32' }, /\(did you mean 'float32'\?\)$/],
    [{ dtype: 'half' }, /float16 is not computed, and 'bfloat16' has as many bytes$/],
    [{ dtype: 'int4' }, /received "int4"$/],
    [{ schedulingPolicy: 'prioritty' }, /\(did you mean 'priority'\?\)$/],
  ];
  for (const [options, message] of cases) t.throws(() => checkOptions(options), { code: 'ERR_USAGE', message }, JSON.stringify(options));
  t.throws(() => checkOptions({ device: 'gpu' }), { code: 'ERR_UNSUPPORTED', message: /\(did you mean 'cuda'\?\)$/ });
  t.throws(() => checkOptions({ device: 'cuda:0' }), { code: 'ERR_UNSUPPORTED', message: /\(did you mean 'cuda'\?\)$/ });
});

t.test('only load makes an LLM', async (t) => {
  const construct = LLM as unknown as new (...args: unknown[]) => LLM;
  for (const args of [['model'], [], [{}], [null]]) {
    t.throws(() => new construct(...args), { code: 'ERR_USAGE', message: /Expected `await LLM\.load\(model\)`/ });
  }
});
