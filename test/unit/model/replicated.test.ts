/** Bytes that two ranks of a host hold: norms, KV heads that both need, whole drafts; nothing else. */
import t from 'tap';
import { buildProgram, cpuWeightBytes, readModel, replicatedBytes } from '../../../rank/model/index.ts';
import { goldenPath } from '../../helpers/goldens.ts';

const sizes = {
  dtype: 'float32',
  kvCacheDtype: 'float32',
  blockSize: 32,
  numBlocks: 1,
  maxModelLen: 32,
  maxNumSeqs: 1,
  maxNumBatchedTokens: 32,
  maxNumLogitRows: 1,
  sampleVocabSize: 1,
} as const;

t.test('norms, and the KV heads of a group that two ranks split', async (t) => {
  const model = readModel(goldenPath('smollm-nine-heads-bf16'));
  const { numAttentionHeads, numKvHeads, hiddenSize, headDim, numHiddenLayers } = model.config;
  t.match({ numAttentionHeads, numKvHeads }, { numAttentionHeads: 9, numKvHeads: 3 });
  const program = (rank: number, worldSize: number) => buildProgram(model, { ...sizes, quantization: 'none', rank, worldSize });
  const norms = (2 * numHiddenLayers + 1) * hiddenSize * 4;
  // Three ranks hold three heads each, which are a group; two hold 4 and 5, and both need the second KV head.
  t.equal(replicatedBytes(program(1, 3), program(0, 3)), norms);
  t.equal(replicatedBytes(program(1, 2), program(0, 2)), norms + numHiddenLayers * 2 * headDim * hiddenSize * 2);
  const story = readModel('examples/models/story-5m');
  const whole = buildProgram(story, { ...sizes, quantization: 'none', rank: 0, worldSize: 1 });
  const { held, mapped } = cpuWeightBytes(whole);
  t.ok(replicatedBytes(whole, whole) <= held + mapped);
  t.ok(replicatedBytes(whole, whole) > 0.9 * (held + mapped), 'a whole draft, but for padding');
});
