/** Embeddings are the same bits on any number of ranks, alone or beside texts, whole or in chunks. */
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { EmbedOptions } from '../../rank/index.ts';
import { type Call, runJob, type Session } from '../helpers/gang.ts';
import { goldenPath } from '../helpers/goldens.ts';

const story = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const ways: EmbedOptions[] = [{}, { pooling: 'mean' }, { pooling: 'mean', normalize: false }];
const embeds = [1, 33, 90].flatMap((length) =>
  ways.map((options): Call => {
    return { type: 'embed', promptTokenIds: Array.from({ length }, (_, i) => (i * i * 3 + 17 * i + 5) % 150), options };
  }),
);
const text: Call = { type: 'generate', prompt: { promptTokenIds: [11, 12, 13] }, params: { seed: 5, maxTokens: 20, ignoreEos: true } };

/** Loads of one model: each call alone, then all at once in chunks of 16 tokens. */
function sessions(model: string, dtype: 'float32' | 'bfloat16'): Session[] {
  const options = { dtype, device: 'cpu', numThreads: 1 } as const;
  return [
    { model, options, rounds: [...embeds, text].map((call) => [call]) },
    { model, options: { ...options, maxNumSeqs: 8, maxNumBatchedTokens: 16 }, rounds: [[...embeds, text]] },
  ];
}

const all = [...sessions(story, 'float32'), ...sessions(story, 'bfloat16'), ...sessions(goldenPath('qwen2-bf16'), 'bfloat16')];

test('on one, two and three ranks', async (t) => {
  const [alone, ...others] = await Promise.all([1, 2, 3].map((worldSize) => runJob(worldSize, all)));
  const expected = alone?.sessions ?? [];
  for (let i = 0; i < expected.length; i += 2) t.same(expected[i + 1], expected[i], `load ${i / 2}, in chunks`);
  t.notSame(expected[2], expected[0], 'bfloat16 rounds otherwise');
  for (const [i, { sessions }] of others.entries()) t.same(sessions, expected, `${i + 2} ranks`);
});
