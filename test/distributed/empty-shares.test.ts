/**
 * A model too small for its ranks: some have no token of the vocabulary, some no column of the MLP, and all
 * participate.
 */
import { test } from 'tap';
import { buildProgram, readModel } from '../../rank/model/index.ts';
import { partition } from '../../rank/model/partition.ts';
import { type Call, logitsOf, runJob } from '../helpers/gang.ts';
import { relativeError } from '../helpers/goldens.ts';
import { headerOf, safetensors, smallLlama, smallLlamaShapes, writeFolder } from '../helpers/model-folder.ts';
import { randomIntegers } from '../helpers/random.ts';
import { part } from '../helpers/scale.ts';
import { ReferenceRank, referenceRun } from '../references/run.ts';

const intermediateSize = 4;
const config = { ...smallLlama, num_attention_heads: 8, num_key_value_heads: 2, intermediate_size: intermediateSize, eos_token_id: 2 };

/** A model with random weights; norm weights are around 1. */
function writeModel(t: Parameters<typeof writeFolder>[0]): string {
  const shapes = Object.entries(smallLlamaShapes()).map(([name, shape]): [string, number[]] => {
    if (/[kv]_proj/.test(name)) return [name, [8, 32]];
    if (!name.includes('.mlp.')) return [name, shape];
    return [name, name.includes('down_proj') ? [32, intermediateSize] : [intermediateSize, 32]];
  });
  const header = headerOf(Object.fromEntries(shapes));
  const file = safetensors(header);
  const draw = randomIntegers(3);
  const end = Math.max(...Object.values(header).map((entry) => entry.data_offsets[1]));
  for (const [name, { data_offsets }] of Object.entries(header)) {
    const center = name.includes('norm') ? 1 : 0;
    for (let at = data_offsets[0]; at < data_offsets[1]; at += 4) {
      file.writeFloatLE(center + (draw(2001) - 1000) / 2000, file.length - end + at);
    }
  }
  return writeFolder(t, { 'config.json': config, 'model.safetensors': file });
}

const promptTokenIds = Array.from({ length: 40 }, (_, i) => (i * 7 + 3) % 40);
const calls: Call[] = [
  { type: 'logits', promptTokenIds },
  { type: 'generate', prompt: { promptTokenIds }, params: { temperature: 0, ignoreEos: true, maxTokens: 12 } },
  { type: 'generate', prompt: { promptTokenIds: [39] }, params: { temperature: 2, seed: 5, ignoreEos: true, maxTokens: 12 } },
  {
    type: 'generate',
    prompt: { promptTokenIds: [0] },
    params: { temperature: 2, seed: 6, topK: 30, topP: 0.9, ignoreEos: true, maxTokens: 12 },
  },
];

test('ranks with empty shares give the same bits', async (t) => {
  const path = writeModel(t);
  const model = readModel(path);
  const parts = Array.from({ length: 4 }, (_, rank) => partition(model.config, rank, 4));
  const sizes = (key: 'vocabRows' | 'mlpColumns') => parts.map((part) => part[key][1] - part[key][0]);
  t.same(sizes('vocabRows'), [0, 32, 0, 8], 'two of four ranks have no tokens');
  t.same(sizes('mlpColumns'), [0, 0, 0, 4], 'three of four ranks have no MLP columns');

  const limits = { blockSize: 32, numBlocks: 4, maxModelLen: 64, maxNumSeqs: 1, maxNumBatchedTokens: 64, maxNumLogitRows: 64 };
  const types = { dtype: 'float32', kvCacheDtype: 'float32', quantization: 'none' } as const;
  const program = buildProgram(model, { rank: 0, worldSize: 1, ...types, sampleVocabSize: 40, ...limits });
  const expected = referenceRun([new ReferenceRank(program)], promptTokenIds, [...promptTokenIds.keys()]).flatMap((row) => [...row]);

  const sessions = (['float32', 'bfloat16'] as const).map((dtype) => ({ model: path, options: { dtype, numThreads: 2 }, rounds: [calls] }));
  const alone = (await runJob(1, sessions)).sessions;
  t.ok(relativeError(logitsOf(alone[0]?.[0]), Float32Array.from(expected)) <= 2e-4, 'what float64 arithmetic gives');
  for (const worldSize of part([4, 3, 2], 2)) t.same((await runJob(worldSize, sessions)).sessions, alone, `${worldSize} ranks`);
});
