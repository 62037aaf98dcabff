/** What a bench measures, and what a token of it costs, by hand. */
import t from 'tap';
import { bytesPerToken, casesOf, flopsPerToken, meanContext, nameOf, promptOf } from '../../../../bin/bench/cases.ts';
import { parseConfig } from '../../../../rank/model/config/config.ts';
import { smallLlama } from '../../../helpers/model-folder.ts';

t.test('cases by depth, with the names of llama-bench', async (t) => {
  const cases = casesOf({ promptLens: [512], outputLens: [128], depths: [0, 64], batchSizes: [1, 8] });
  t.same(cases.map(nameOf), ['pp512', 'tg128', 'tg128, batch 8', 'pp512 @ d64', 'tg128 @ d64', 'tg128 @ d64, batch 8']);
  t.same(casesOf({ promptLens: [0], outputLens: [4], depths: [32], batchSizes: [1] }).map(nameOf), ['tg4 @ d32'], 'no prefill');
});

t.test('bytes and operations of a token', async (t) => {
  const decode = { phase: 'decode', numTokens: 3, depth: 32, batchSize: 4 } as const;
  t.equal(meanContext(decode), 34, 'contexts of 33, 34 and 35 tokens');
  t.equal(bytesPerToken(decode, 4000, 10), 1000 + 340);
  const config = parseConfig(smallLlama, 'config.json', undefined);
  const { hiddenSize, vocabSize, numHiddenLayers, numAttentionHeads, headDim } = config;
  const prefill = { phase: 'prefill', numTokens: 1, depth: 0, batchSize: 1 } as const;
  const later = { ...prefill, depth: 10 };
  t.equal(flopsPerToken(later, config) - flopsPerToken(prefill, config), 40 * numHiddenLayers * numAttentionHeads * headDim);
  const step = { ...prefill, phase: 'decode' } as const;
  t.equal(flopsPerToken(step, config) - flopsPerToken(prefill, config), 2 * hiddenSize * vocabSize, 'the LM head');
});

t.test('prompts differ from their first block on, in small vocabularies too', async (t) => {
  const prompts = Array.from({ length: 300 }, (_, salt) => promptOf(32, salt, 256).join());
  t.equal(new Set(prompts).size, 300);
  t.equal(promptOf(40, 7, 256).slice(0, 32).join(), prompts[7], 'a longer prompt begins as a shorter one');
  t.ok(promptOf(1000, 1, 7).every((id) => Number.isInteger(id) && id >= 0 && id < 7));
});
