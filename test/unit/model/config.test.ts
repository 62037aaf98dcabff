/** config.json: both layouts, the defaults that Hugging Face leaves out, and every refusal. */
import { test } from 'tap';
import { parseConfig } from '../../../rank/model/config/config.ts';
import { ConfigReader } from '../../../rank/model/config/config-reader.ts';

const llama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 3,
  num_attention_heads: 8,
  vocab_size: 256,
};
const mistral = { ...llama, architectures: ['MistralForCausalLM'], model_type: 'mistral' };
const qwen2 = { ...llama, architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2', num_key_value_heads: 4 };
const qwen3 = { ...qwen2, architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3' };

const parse = (config: object, generation?: object) =>
  parseConfig(
    config as Record<string, unknown>,
    'config.json',
    generation === undefined ? undefined : new ConfigReader('generation_config.json', generation as Record<string, unknown>),
  );

test('defaults of the Hugging Face classes', async (t) => {
  t.match(parse(llama), {
    numKvHeads: 8,
    headDim: 8,
    maxPositionEmbeddings: 2048,
    rmsNormEps: 1e-6,
    tieWordEmbeddings: false,
    qkvBias: false,
    oBias: false,
    mlpBias: false,
    qkNorm: false,
    slidingWindows: [0, 0, 0],
    rope: { type: 'default', theta: 10000 },
    eosTokenIds: [2],
  });
  t.match(parse(mistral), {
    numKvHeads: 8,
    maxPositionEmbeddings: 131072,
    slidingWindows: [4096, 4096, 4096],
    eosTokenIds: [2],
    qkvBias: false,
  });
  t.match(parse(qwen2), {
    headDim: 8,
    maxPositionEmbeddings: 32768,
    qkvBias: true,
    oBias: false,
    mlpBias: false,
    slidingWindows: [0, 0, 0],
    eosTokenIds: [],
  });
  t.match(parse(qwen3), { headDim: 128, qkvBias: false, oBias: false, qkNorm: true });
  t.equal(parse({ ...qwen2, num_attention_heads: 64, num_key_value_heads: undefined, head_dim: 2 }).numKvHeads, 32);
  t.equal(parse({ ...qwen2, num_attention_heads: 64, num_key_value_heads: null, head_dim: 2 }).numKvHeads, 64);
  t.equal(parse({ ...llama, num_key_value_heads: null, head_dim: null }).numKvHeads, 8, 'null is absent');
});

test('biases', async (t) => {
  t.match(parse({ ...llama, attention_bias: true, mlp_bias: true }), { qkvBias: true, oBias: true, mlpBias: true });
  t.match(parse({ ...qwen3, attention_bias: true }), { qkvBias: true, oBias: true, mlpBias: false });
});

test('both layouts of the rotary embedding', async (t) => {
  t.same(parse({ ...llama, rope_theta: 5e5, rope_scaling: null, torch_dtype: 'bfloat16' }).rope, { type: 'default', theta: 5e5 });
  t.same(parse({ ...llama, rope_parameters: { rope_theta: 5e5, rope_type: 'default' }, dtype: 'bfloat16' }).rope, {
    type: 'default',
    theta: 5e5,
  });
  const linear = { type: 'linear', theta: 10000, factor: 4, originalMaxPositionEmbeddings: 2048 };
  t.same(parse({ ...llama, rope_scaling: { type: 'linear', factor: 4 } }).rope, linear);
  t.same(parse({ ...llama, rope_scaling: { type: 'other', rope_type: 'linear', factor: 4 } }).rope, linear, 'rope_type wins over type');
  t.same(parse({ ...llama, rope_theta: 77, rope_parameters: { rope_type: 'linear', factor: 4 } }).rope, { ...linear, theta: 77 });
  t.same(parse({ ...llama, rope_scaling: { rope_type: 'dynamic', factor: 2 } }).rope, { type: 'dynamic', theta: 10000, factor: 2 });
});

test('sliding windows', async (t) => {
  t.same(parse({ ...mistral, sliding_window: 24 }).slidingWindows, [24, 24, 24]);
  t.same(parse({ ...mistral, sliding_window: null }).slidingWindows, [0, 0, 0]);
  t.same(parse({ ...qwen2, sliding_window: 24 }).slidingWindows, [0, 0, 0], 'unused without use_sliding_window');
  const windowed = { ...qwen3, use_sliding_window: true, sliding_window: 24 };
  t.same(parse({ ...windowed, max_window_layers: 1 }).slidingWindows, [0, 24, 24]);
  t.same(parse(windowed).slidingWindows, [0, 0, 0], 'the upper layers begin at 28');
  t.same(parse({ ...windowed, sliding_window: undefined, max_window_layers: 2 }).slidingWindows, [0, 0, 4096], 'the default window');
  t.same(parse({ ...windowed, sliding_window: null, max_window_layers: 2 }).slidingWindows, [0, 0, 0]);
  const layerTypes = ['sliding_attention', 'full_attention', 'sliding_attention'];
  t.same(parse({ ...windowed, layer_types: layerTypes }).slidingWindows, [24, 0, 24]);
  t.throws(() => parse({ ...qwen3, layer_types: layerTypes }), { code: 'ERR_CONFIG', message: /sliding_window in config.json/ });
  t.throws(() => parse({ ...qwen3, layer_types: ['full_attention'] }), { code: 'ERR_CONFIG', message: /num_hidden_layers = 3/ });
  t.throws(() => parse({ ...qwen3, layer_types: ['full_attention', 'full_attention', 'linear_attention'] }), { code: 'ERR_UNSUPPORTED' });
  t.throws(() => parse({ ...mistral, sliding_window: 24, layer_types: layerTypes }), { code: 'ERR_UNSUPPORTED', message: /layer_types/ });
  t.throws(() => parse({ ...llama, sliding_window: 24 }), { code: 'ERR_UNSUPPORTED', message: /sliding_window/ });
});

test('end-of-sequence tokens', async (t) => {
  t.same(parse({ ...llama, eos_token_id: [3, 4, 3] }).eosTokenIds, [3, 4]);
  t.same(parse({ ...llama, eos_token_id: null }).eosTokenIds, []);
  t.same(parse({ ...llama, eos_token_id: 3 }, { eos_token_id: [5, 6] }).eosTokenIds, [5, 6], 'generation_config.json decides');
  t.same(parse({ ...llama, eos_token_id: 3 }, { temperature: 1 }).eosTokenIds, [3]);
  t.same(parse({ ...llama, eos_token_id: [2, 256, -1] }).eosTokenIds, [2], 'ids that no vocabulary holds');
  for (const id of ['3', 1.5, [1, null]])
    t.throws(() => parse({ ...llama, eos_token_id: id }), { code: 'ERR_CONFIG', message: /eos_token_id in config.json/ });
  t.same(parse(llama, { eos_token_id: 256 }).eosTokenIds, []);
  t.throws(() => parse(llama, { eos_token_id: '3' }), { code: 'ERR_CONFIG', message: /generation_config.json/ });
});

test('a needed key that is missing or of a wrong type or value', async (t) => {
  for (const key of ['architectures', 'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'vocab_size']) {
    const { [key as 'vocab_size']: _, ...without } = llama;
    t.throws(
      () => parse(without),
      { code: 'ERR_CONFIG', message: new RegExp(`Expected .* for ${key} in config.json but received nothing`) },
      `${key} missing`,
    );
    for (const value of ['64', 0, -1, 1.5, true, [64], {}, Number.NaN]) {
      t.throws(
        () => parse({ ...llama, [key]: value }),
        { code: 'ERR_CONFIG', message: new RegExp(key) },
        `${key} ${JSON.stringify(value)}`,
      );
    }
  }
  for (const [key, value] of Object.entries({
    num_key_value_heads: 3,
    head_dim: 7,
    rms_norm_eps: 0,
    max_position_embeddings: '2048',
    tie_word_embeddings: 1,
    attention_bias: 'yes',
    rope_theta: '1e4',
    rope_scaling: 'linear',
    rope_parameters: [],
    model_type: 'qwen2',
  })) {
    t.throws(() => parse({ ...llama, [key]: value }), { code: 'ERR_CONFIG', message: new RegExp(`${key} in config.json`) }, key);
  }
  t.throws(() => parse({ ...llama, hidden_size: 60 }), { code: 'ERR_CONFIG', message: /hidden_size/ }, 'heads that do not divide it');
  t.throws(() => parse({ ...llama, hidden_size: 56 }), { code: 'ERR_CONFIG', message: /even/ }, 'odd heads');
});

test('what is not implemented', async (t) => {
  for (const [key, value] of Object.entries({
    architectures: ['GemmaForCausalLM'],
    hidden_act: 'gelu',
    num_attention_heads: 257,
    vocab_size: 2 ** 20,
    head_dim: 512,
    hidden_size: 2 ** 40,
    quantization_config: { bits: 4 },
    logit_scale: 0.5,
    attn_logit_softcapping: 50,
    num_experts: 8,
    partial_rotary_factor: 0.5,
  })) {
    t.throws(() => parse({ ...llama, [key]: value }), { code: 'ERR_UNSUPPORTED', message: new RegExp(`${key} in config.json`) }, key);
  }
  t.throws(() => parse({ ...llama, architectures: ['__proto__'] }), { code: 'ERR_UNSUPPORTED' });
  t.throws(
    () => parse({ ...llama, architectures: ['GemmaForCausalLM'] }),
    { message: /LlamaForCausalLM, MistralForCausalLM/ },
    'says what is supported',
  );
});

test('keys that change nothing', async (t) => {
  t.same(
    parse({ ...llama, logit_scale: 1, num_experts: 0, quantization_config: null, partial_rotary_factor: 1, use_cache: true, made_up: {} }),
    parse(llama),
  );
  const harmless = {
    attention_chunk_size: 2048,
    attention_multiplier: 8 ** -0.5,
    query_pre_attn_scalar: 8,
    attn_logit_softcapping: 0,
    hidden_act: 'swish',
    no_rope_layers: [1, 1, 1],
    sliding_window: 4096,
    use_sliding_window: false,
  };
  t.same(parse({ ...llama, ...harmless }), parse(llama), 'values that change nothing');
  t.same(parse({ ...mistral, attention_bias: true }), parse(mistral), 'a key that Hugging Face ignores');
  for (const [key, value] of Object.entries({
    attention_chunk_size: 2047,
    attention_multiplier: 0.3,
    query_pre_attn_scalar: 16,
    no_rope_layers: [1, 1, 0],
  }))
    t.throws(() => parse({ ...llama, [key]: value }), { code: 'ERR_UNSUPPORTED', message: new RegExp(key) }, key);
});

test('decoders beside a vision tower', async (t) => {
  const { architectures, model_type, ...text } = qwen3;
  const whole = { architectures: ['Qwen3VLForConditionalGeneration'], model_type: 'qwen3_vl', image_token_id: 7, video_token_id: 8 };
  const nested = (more: object = {}, config: object = {}) =>
    parse({ ...whole, ...config, text_config: { ...text, model_type: 'qwen3_vl_text', ...more } });
  t.match(nested(), {
    isMultimodal: true,
    qkNorm: true,
    headDim: 128,
    maxPositionEmbeddings: 128000,
    rope: { type: 'default', theta: 5e5 },
  });
  t.same(nested().imageTokens, [
    { id: 7, key: 'image_token_id' },
    { id: 8, key: 'video_token_id' },
  ]);
  t.equal(nested({ tie_word_embeddings: true }, { tie_word_embeddings: false }).tieWordEmbeddings, false, 'the key of the whole decides');
  t.equal(nested({ tie_word_embeddings: true }).tieWordEmbeddings, true);
  t.same(nested({ eos_token_id: 5 }).eosTokenIds, [5]);
  t.same(nested({ eos_token_id: 5 }, { eos_token_id: 6 }).eosTokenIds, [6]);
  t.same(nested({ rope_scaling: { mrope_section: [24, 20, 20], mrope_interleaved: true, rope_type: 'default' } }).rope, nested().rope);
  t.throws(() => nested({ rope_scaling: { mrope_section: [24, 20], rope_type: 'default' } }), {
    code: 'ERR_CONFIG',
    message: /mrope_section/,
  });
  t.throws(() => nested({ model_type: 'qwen3_5_text' }), { code: 'ERR_UNSUPPORTED', message: /text_config.model_type/ });
  t.throws(() => parse({ ...whole, architectures: ['Qwen3_5ForConditionalGeneration'] }), { code: 'ERR_UNSUPPORTED', message: /Qwen3_5/ });
  const flat = {
    ...qwen2,
    architectures: ['Qwen2VLForConditionalGeneration'],
    model_type: 'qwen2_vl',
    rope_scaling: { type: 'mrope', mrope_section: [2, 1, 1] },
  };
  t.match(
    parse(flat),
    { isMultimodal: true, qkvBias: true, rmsNormEps: 1e-5, rope: { type: 'default', theta: 1e6 } },
    'keys of older files',
  );
  t.match(
    parse({
      architectures: ['Mistral3ForConditionalGeneration'],
      model_type: 'mistral3',
      text_config: { ...text, model_type: 'ministral3' },
    }),
    {
      slidingWindows: [0, 0, 0],
      rmsNormEps: 1e-5,
    },
  );
});

test('queries scaled by position read the section that the rotary embedding reads', async (t) => {
  const ministral3 = { ...mistral, architectures: ['Ministral3ForCausalLM'], model_type: 'ministral3' };
  const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64, llama_4_scaling_beta: 0.1 };
  t.same(parse({ ...ministral3, rope_parameters: yarn }).queryScaling, { beta: 0.1, length: 64 });
  const both = { rope_scaling: yarn, rope_parameters: { ...yarn, factor: 2, original_max_position_embeddings: 128 } };
  t.match(parse({ ...ministral3, ...both }), { queryScaling: { length: 64 }, rope: { originalMaxPositionEmbeddings: 64 } });
  t.equal(parse({ ...ministral3, rope_parameters: { ...yarn, llama_4_scaling_beta: 0 } }).queryScaling, null);
  t.equal(parse({ ...mistral, rope_parameters: yarn }).queryScaling, null);
});

test('layers without RoPE, and Llama under other names', async (t) => {
  const smollm3 = { ...llama, architectures: ['SmolLM3ForCausalLM'], model_type: 'smollm3', num_hidden_layers: 5 };
  t.match(parse(smollm3), { hasRope: [true, true, true, false, true], tieWordEmbeddings: true, numKvHeads: 4 });
  t.same(parse({ ...smollm3, no_rope_layers: [0, 1, 1, 1, 1] }).hasRope, [false, true, true, true, true]);
  t.same(parse({ ...smollm3, no_rope_layer_interval: 2 }).hasRope, [true, false, true, false, true]);
  t.same(parse({ ...smollm3, use_sliding_window: true, sliding_window: 9 }).slidingWindows, [0, 0, 0, 9, 0]);
  t.throws(() => parse({ ...smollm3, no_rope_layers: [0, 1] }), { code: 'ERR_CONFIG', message: /no_rope_layers/ });
  const internlm3 = { ...llama, architectures: ['InternLM3ForCausalLM'], model_type: 'internlm3', qkv_bias: true, bias: false };
  t.match(parse(internlm3), { qkvBias: true, oBias: false, mlpBias: false });
  const { isMultimodal: _, ...asLlama } = parse({ ...llama, architectures: ['IQuestCoderForCausalLM'], model_type: 'iquestcoder' });
  t.match(parse(llama), asLlama);
});

test('rotary embeddings that are refused', async (t) => {
  const rope = (rope_scaling: object) => () => parse({ ...llama, rope_scaling });
  const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  t.throws(rope({ rope_type: 'proportional' }), { code: 'ERR_UNSUPPORTED', message: /yarn.* rope_scaling.rope_type/ });
  t.throws(rope({ type: 'mrope' }), { code: 'ERR_UNSUPPORTED', message: /rope_scaling.type/ });
  t.throws(rope({ rope_type: 'default', mrope_section: [16, 24, 24] }), { code: 'ERR_UNSUPPORTED', message: /mrope_section/ });
  t.throws(rope({ full_attention: { rope_type: 'default' } }), { code: 'ERR_UNSUPPORTED', message: /full_attention/ });
  t.throws(rope({ rope_type: 5 }), { code: 'ERR_CONFIG', message: /rope_type/ });
  for (const type of ['linear', 'dynamic', 'yarn']) {
    t.throws(rope({ rope_type: type }), { code: 'ERR_CONFIG', message: /rope_scaling.factor/ }, `${type} without a factor`);
    t.throws(rope({ rope_type: type, factor: 0 }), { code: 'ERR_CONFIG', message: /rope_scaling.factor/ });
  }
  for (const key of ['factor', 'low_freq_factor', 'high_freq_factor']) {
    t.throws(rope({ ...llama3, [key]: undefined }), { code: 'ERR_CONFIG', message: new RegExp(`rope_scaling.${key}`) }, key);
  }
  t.throws(rope({ ...llama3, high_freq_factor: 1 }), { code: 'ERR_CONFIG', message: /high_freq_factor/ });
  t.throws(rope({ ...llama3, original_max_position_embeddings: 0 }), { code: 'ERR_CONFIG', message: /original_max_position_embeddings/ });
  t.throws(rope({ rope_type: 'yarn', factor: 2, truncate: 'no' }), { code: 'ERR_CONFIG', message: /truncate/ });
  t.throws(rope({ rope_type: 'yarn', factor: 2, attention_factor: -1 }), { code: 'ERR_CONFIG', message: /attention_factor/ });
});
