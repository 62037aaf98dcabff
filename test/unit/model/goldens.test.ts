/** Programs against Hugging Face: every golden case on 1 to 8 ranks, in float64 and without native code. */
import { test } from 'tap';
import { buildProgram, type Model, readModel } from '../../../rank/model/index.ts';
import { goldenNames, readGolden, relativeError } from '../../helpers/goldens.ts';
import { ReferenceRank, referenceRun } from '../../references/run.ts';

/** Numbers of ranks, and the prompts they run; the longest exceeds the window and every RoPE threshold. */
const cases = [
  [1, [0, 1, 2, 3]],
  [2, [1, 2]],
  [3, [1, 2]],
  [4, [1, 2]],
  [8, [1]],
] as const;

function loadRanks(model: Model, worldSize: number): ReferenceRank[] {
  const limits = { blockSize: 32, numBlocks: 4, maxModelLen: 128, maxNumSeqs: 1, maxNumBatchedTokens: 128, maxNumLogitRows: 128 };
  const options = {
    worldSize,
    dtype: 'float32',
    kvCacheDtype: 'float32',
    quantization: 'expand',
    sampleVocabSize: model.config.vocabSize,
    ...limits,
  } as const;
  return Array.from({ length: worldSize }, (_, rank) => new ReferenceRank(buildProgram(model, { rank, ...options })));
}

test('there are thirty-four goldens', async (t) => {
  t.equal(goldenNames.length, 34);
});

for (const name of goldenNames) {
  test(name, async (t) => {
    const golden = readGolden(name);
    const model = readModel(golden.path);
    for (const [worldSize, prompts] of cases) {
      const ranks = loadRanks(model, worldSize);
      for (const prompt of prompts) {
        const tokenIds = golden.prompts[prompt] as readonly number[];
        const rows = referenceRun(ranks, tokenIds, [...tokenIds.keys()]);
        const logits = rows.flatMap((row) => [...row]);
        const error = relativeError(logits, golden.logits[prompt] as Float32Array);
        t.ok(error <= 1e-5, `prompt ${prompt}, ${worldSize} ranks: ${error}`);
      }
    }
  });
}
