/** generation_config.json as sampling defaults. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ConfigReader } from '../../../rank/model/config/config-reader.ts';
import { parseSamplingDefaults, readSamplingDefaults } from '../../../rank/request/generation-config.ts';
import { goldenNames, goldenPath } from '../../helpers/goldens.ts';
import { writeFolder } from '../../helpers/model-folder.ts';

const parse = (object: Record<string, unknown>) => parseSamplingDefaults(new ConfigReader('generation_config.json', object));

t.test('takes the keys that vLLM takes, and no others', async (t) => {
  // As published with Qwen3-0.6B and Llama-3.2-1B-Instruct.
  const qwen3 = {
    bos_token_id: 151643,
    do_sample: true,
    eos_token_id: [151645, 151643],
    pad_token_id: 151643,
    temperature: 0.6,
    top_k: 20,
    top_p: 0.95,
  };
  t.same(parse(qwen3), { temperature: 0.6, topK: 20, topP: 0.95 });
  const llama = { bos_token_id: 128000, do_sample: true, eos_token_id: [128001, 128008, 128009], temperature: 0.6, top_p: 0.9 };
  t.same(parse(llama), { temperature: 0.6, topP: 0.9 });
  t.same(parse({ min_p: 0.1, repetition_penalty: 1.05, max_new_tokens: 2048 }), { minP: 0.1, repetitionPenalty: 1.05, maxTokens: 2048 });
  t.same(parse({ temperature: null, top_k: null, repetition_penalty: 1, num_beams: 4, max_length: 20 }), {});
  t.same(parse({ do_sample: false, temperature: 0.6 }), { temperature: 0.6 }, 'do_sample has no effect');
  t.same(parse({ temperature: 0, top_k: 0 }), { temperature: 0, topK: 0 });
});

t.test('names the file and the key that is wrong', async (t) => {
  const wrong: Record<string, unknown[]> = {
    temperature: [-1, '0.6', true, 1e-9, []],
    top_k: [-2, 1.5, '20'],
    top_p: [0, 1.1, '1'],
    min_p: [-0.1, 2],
    repetition_penalty: [0, -1, '1'],
    max_new_tokens: [0, 1.5, '5', 2 ** 31],
  };
  for (const [key, values] of Object.entries(wrong)) {
    for (const value of values) {
      const message = new RegExp(`for ${key} in generation_config\\.json but received `);
      t.throws(() => parse({ [key]: value }), { code: 'ERR_CONFIG', message }, `${key}: ${JSON.stringify(value)}`);
    }
  }
});

t.test('reads a folder', async (t) => {
  t.same(readSamplingDefaults(writeFolder(t, {})), {});
  t.same(readSamplingDefaults(writeFolder(t, { 'generation_config.json': { top_k: 20 } })), { topK: 20 });
  const broken = writeFolder(t, { 'generation_config.json': '{' });
  t.throws(() => readSamplingDefaults(broken), { code: 'ERR_CONFIG', message: /generation_config\.json/ });
});

t.test('the models that ship ask for nothing', async (t) => {
  const stories = ['story-5m', 'story-180k'].map((name) => fileURLToPath(new URL(`../../../examples/models/${name}`, import.meta.url)));
  for (const folder of [...stories, ...goldenNames.map(goldenPath)]) t.same(readSamplingDefaults(folder), {}, folder);
});
