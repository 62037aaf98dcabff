/** Progress of loads and of calls: what is reported, how often, and what becomes of a callback that throws. */
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { type GenerateProgress, LLM, type LLMOptions, type LoadProgress } from '../../rank/index.ts';
import { buildProgram, cpuWeightBytes, readModel } from '../../rank/model/index.ts';
import { runScript } from '../helpers/gang.ts';
import { sparseModel } from '../helpers/sparse-model.ts';

const story = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const options: LLMOptions = {
  device: 'cpu',
  dtype: 'float32',
  numThreads: 1,
  kvCacheMemoryBytes: 2 ** 22,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 32,
};

/** Bytes that all ranks together pack of a model. */
function packedBytes(path: string, worldSize: number): number {
  const model = readModel(path);
  const sizes = { blockSize: 32, numBlocks: 1, maxModelLen: 64, maxNumSeqs: 4, maxNumBatchedTokens: 32, maxNumLogitRows: 128 };
  const frame = { ...sizes, worldSize, dtype: 'float32', kvCacheDtype: 'float32', quantization: 'none', sampleVocabSize: 40 } as const;
  return Array.from({ length: worldSize }, (_, rank) => cpuWeightBytes(buildProgram(model, { ...frame, rank })).held).reduce(
    (a, b) => a + b,
  );
}

/** From 0 to all bytes, never back. */
function checkEvents(t: Test, events: readonly LoadProgress[], totalBytes: number): void {
  const done = events.map(({ doneBytes }) => doneBytes);
  t.same([done[0], done.at(-1)], [0, totalBytes]);
  t.same(
    [...done].sort((a, b) => a - b),
    done,
    'ascending',
  );
  t.ok(events.every(({ phase, totalBytes: total, file }) => phase === 'weights' && total === totalBytes && file === null));
}

t.test('a load on one rank and on two reports the bytes of all ranks, some times a second', async (t) => {
  const model = sparseModel(t, { hiddenSize: 1024, intermediateSize: 4096, numLayers: 6, numHeads: 8 });
  for (const worldSize of [1, 2]) {
    const job = { model, options };
    const { events, ms, isKept } = await runScript<{ events: LoadProgress[]; ms: number; isKept: boolean }>(
      worldSize,
      'load-progress.ts',
      job,
    );
    checkEvents(t, events, packedBytes(model, worldSize));
    t.ok(events.length <= 3 + ms / 100, `${events.length} reports in ${ms} ms`);
    t.notOk(isKept, 'resolved options do not hold it');
  }
});

t.test('a callback that throws rejects the load, and the next load is as any', async (t) => {
  let numCalls = 0;
  const cause = new Error('mine');
  const onProgress = () => {
    numCalls++;
    throw cause;
  };
  await t.rejects(LLM.load(story, { ...options, onProgress }), {
    code: 'ERR_USAGE',
    message: 'Expected onProgress to return but it threw: mine',
    cause,
  });
  t.equal(numCalls, 1);
  await t.rejects(LLM.load(story, { ...options, onProgress: 'loud' as never }), {
    code: 'ERR_USAGE',
    message: 'Expected a function for onProgress but received "loud"',
  });
  const events: LoadProgress[] = [];
  const llm = await LLM.load(story, { ...options, onProgress: (progress) => events.push(progress) });
  checkEvents(t, events, packedBytes(story, 1));
  await llm.close();
});

t.test('a call on several prompts counts those that have finished, and tokens', async (t) => {
  const llm = await LLM.load(story, options);
  t.teardown(() => llm.close());
  const reports: GenerateProgress[] = [];
  const prompts = Array.from({ length: 9 }, (_, i) => ({ promptTokenIds: [1, 2 + i] }));
  const params = { maxTokens: 5, ignoreEos: true, n: 2, temperature: 1, seed: 1 };
  const plain = await llm.generate(prompts, params);
  const outputs = await llm.generate(prompts, params, { onProgress: (progress) => reports.push(progress) });
  t.same(outputs, plain, 'the outputs are the same');
  t.same(
    reports.filter(({ finished }, i) => finished !== reports[i - 1]?.finished).map(({ finished }) => finished),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  t.same(reports.at(-1), { finished: 9, total: 9, numTokens: 90 });
  const single: GenerateProgress[] = [];
  await llm.generate('Once', { maxTokens: 2, ignoreEos: true }, { onProgress: (progress) => single.push(progress) });
  t.same(single.at(-1), { finished: 1, total: 1, numTokens: 2 });
});

t.test('a callback that throws rejects its call alone', async (t) => {
  const llm = await LLM.load(story, options);
  t.teardown(() => llm.close());
  const cause = new Error('mine');
  let numCalls = 0;
  const onProgress = () => {
    numCalls++;
    throw cause;
  };
  const prompts = [1, 2, 3, 4, 5, 6].map((id) => ({ promptTokenIds: [id] }));
  const params = { maxTokens: 8, ignoreEos: true, temperature: 0 };
  const other = llm.generate(prompts, params);
  await t.rejects(llm.generate(prompts, params, { onProgress }), {
    code: 'ERR_REQUEST',
    message: /onProgress to return but it threw: mine/,
    cause,
  });
  t.equal(numCalls, 1, 'it is not called again');
  t.equal((await other).length, 6, 'another call goes on');
  t.equal((await llm.generate({ promptTokenIds: [1] }, params)).outputs[0].tokenIds.length, 8);
  t.equal(llm.stats().numRunning, 0);
  await t.rejects(llm.generate('a', {}, { onProgress: 3 as never }), {
    code: 'ERR_REQUEST',
    message: /a function for onProgress but received 3/,
  });
  const stream = llm.stream('a', {}, { onProgress } as never);
  await t.rejects(stream.next(), { code: 'ERR_REQUEST', message: /received 'onProgress'/ }, 'chunks are the progress of a stream');
});
