/** The decoder's hyperparameters, validated, from the config.json of a Hugging Face checkpoint. */
import { describeJson, NdsError } from '../../../protocol/errors.ts';
import type { JsonObject } from '../json.ts';
import { ConfigReader } from './config-reader.ts';
import { type ContextLengths, contextLengths, parseRope, type RopeConfig } from './rope-config.ts';
import { parseSlidingWindows, type WindowRule } from './sliding-window.ts';

/** Hyperparameters of a model. */
export interface ModelConfig {
  readonly architecture: Architecture;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  /** Key and value heads, each shared by `numAttentionHeads / numKvHeads` query heads. */
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  /** Whether the LM head is the embedding's matrix. */
  readonly tieWordEmbeddings: boolean;
  /** Which projections have a bias. */
  readonly qkvBias: boolean;
  readonly oBias: boolean;
  readonly mlpBias: boolean;
  /** Whether every query and key head is normalised (Qwen3). */
  readonly qkNorm: boolean;
  /** `[numHiddenLayers]` newest tokens that a layer attends to; 0 = all. */
  readonly slidingWindows: readonly number[];
  readonly rope: RopeConfig;
  readonly contextLengths: ContextLengths;
  /** End-of-sequence tokens; may be empty. */
  readonly eosTokenIds: readonly number[];
}

/** The supported values of `architectures`. */
export type Architecture = keyof typeof families;

/** Properties of a family, with the defaults that its Hugging Face class omits from config.json. */
interface Family {
  readonly modelType: string;
  /** Projections with a bias; a string names the key that decides. */
  readonly qkvBias: boolean | 'attention_bias';
  readonly oBias: boolean | 'attention_bias';
  readonly mlpBias: boolean | 'mlp_bias';
  readonly qkNorm: boolean;
  readonly windows: WindowRule;
  /** `null` = as many as attention heads. */
  readonly numKvHeads: number | null;
  /** `null` = hidden_size / num_attention_heads. */
  readonly headDim: number | null;
  readonly maxPositionEmbeddings: number;
  readonly eosTokenId: number | null;
}

const families = {
  LlamaForCausalLM: {
    modelType: 'llama',
    qkvBias: 'attention_bias',
    oBias: 'attention_bias',
    mlpBias: 'mlp_bias',
    qkNorm: false,
    windows: 'none',
    numKvHeads: null,
    headDim: null,
    maxPositionEmbeddings: 2048,
    eosTokenId: 2,
  },
  MistralForCausalLM: {
    modelType: 'mistral',
    qkvBias: false,
    oBias: false,
    mlpBias: false,
    qkNorm: false,
    windows: 'every layer',
    numKvHeads: 8,
    headDim: null,
    maxPositionEmbeddings: 131072,
    eosTokenId: 2,
  },
  Qwen2ForCausalLM: {
    modelType: 'qwen2',
    qkvBias: true,
    oBias: false,
    mlpBias: false,
    qkNorm: false,
    windows: 'upper layers',
    numKvHeads: 32,
    headDim: null,
    maxPositionEmbeddings: 32768,
    eosTokenId: null,
  },
  Qwen3ForCausalLM: {
    modelType: 'qwen3',
    qkvBias: 'attention_bias',
    oBias: 'attention_bias',
    mlpBias: false,
    qkNorm: true,
    windows: 'upper layers',
    numKvHeads: 32,
    headDim: 128,
    maxPositionEmbeddings: 32768,
    eosTokenId: null,
  },
} as const satisfies Record<string, Family>;

/** Max sizes; beyond them a file is wrong, or exceeds what kernels support. */
const limits = {
  hiddenSize: 2 ** 18,
  intermediateSize: 2 ** 20,
  numHiddenLayers: 1024,
  numAttentionHeads: 256,
  headDim: 256,
  vocabSize: 2 ** 22,
  maxPositionEmbeddings: 2 ** 28,
} as const;

/** Keys of other families that change what a model computes, with their neutral values. */
const foreignKeys: Readonly<Record<string, number | undefined>> = {
  attention_chunk_size: undefined,
  attention_multiplier: undefined,
  attn_logit_softcapping: undefined,
  clip_qkv: undefined,
  embedding_multiplier: 1,
  final_logit_softcapping: undefined,
  logit_scale: 1,
  logits_scaling: 1,
  no_rope_layers: undefined,
  num_experts: 0,
  num_local_experts: 0,
  n_routed_experts: 0,
  quantization_config: undefined,
  query_pre_attn_scalar: undefined,
  residual_multiplier: 1,
  scale_depth: undefined,
  scale_emb: 1,
  use_qk_norm: undefined,
};

/**
 * Validates the object of a config.json.
 * @param file - its path, named in errors
 * @param generation - generation_config.json, if there is one
 * @throws NdsError `ERR_CONFIG` for a key that is missing or of a wrong type or value, `ERR_UNSUPPORTED` for what is
 * not implemented.
 */
export function parseConfig(object: JsonObject, file: string, generation?: ConfigReader): ModelConfig {
  const config = new ConfigReader(file, object);
  const architecture = parseArchitecture(config);
  const family: Family = families[architecture];
  refuseForeignKeys(config);
  if ((config.raw('hidden_act') ?? 'silu') !== 'silu') throw config.wrong('hidden_act', '"silu"', 'ERR_UNSUPPORTED');
  const maxPositionEmbeddings = config.integer('max_position_embeddings', 1, limits.maxPositionEmbeddings, family.maxPositionEmbeddings);
  const numHiddenLayers = config.integer('num_hidden_layers', 1, limits.numHiddenLayers);
  const vocabSize = config.integer('vocab_size', 1, limits.vocabSize);
  const heads = parseHeads(config, family);
  const rope = parseRope(config, maxPositionEmbeddings, heads.headDim);
  return {
    architecture,
    hiddenSize: config.integer('hidden_size', 1, limits.hiddenSize),
    intermediateSize: config.integer('intermediate_size', 1, limits.intermediateSize),
    numHiddenLayers,
    ...heads,
    vocabSize,
    maxPositionEmbeddings,
    rmsNormEps: config.numberAbove('rms_norm_eps', 0, 1e-6),
    tieWordEmbeddings: config.boolean('tie_word_embeddings', false),
    ...parseBiases(config, family),
    qkNorm: family.qkNorm,
    slidingWindows: parseSlidingWindows(config, family.windows, numHiddenLayers),
    rope,
    contextLengths: contextLengths(rope, maxPositionEmbeddings),
    eosTokenIds: parseEosTokenIds(config, generation, vocabSize, family.eosTokenId),
  };
}

function parseArchitecture(config: ConfigReader): Architecture {
  const supported = Object.keys(families).join(', ');
  const value = config.raw('architectures');
  if (!Array.isArray(value) || value.length !== 1 || typeof value[0] !== 'string')
    throw config.wrong('architectures', `a list of one of ${supported}`);
  const name: string = value[0];
  if (!Object.hasOwn(families, name)) throw config.wrong('architectures', `one of ${supported}`, 'ERR_UNSUPPORTED');
  const architecture = name as Architecture;
  const { modelType } = families[architecture];
  if ((config.raw('model_type') ?? modelType) !== modelType) throw config.wrong('model_type', `"${modelType}", as ${name} has it,`);
  return architecture;
}

function refuseForeignKeys(config: ConfigReader): void {
  for (const [key, neutral] of Object.entries(foreignKeys)) {
    const value = config.raw(key) ?? false;
    if (value === false || value === neutral) continue;
    throw config.wrong(key, neutral === undefined ? 'no value' : `${neutral} or no value`, 'ERR_UNSUPPORTED');
  }
}

function parseHeads(config: ConfigReader, family: Family): Pick<ModelConfig, 'numAttentionHeads' | 'numKvHeads' | 'headDim'> {
  const numAttentionHeads = config.integer('num_attention_heads', 1, limits.numAttentionHeads);
  const kvKey = 'num_key_value_heads';
  const numKvHeads = config.hasKey(kvKey)
    ? config.integer(kvKey, 1, limits.numAttentionHeads, numAttentionHeads)
    : (family.numKvHeads ?? numAttentionHeads);
  if (numAttentionHeads % numKvHeads !== 0)
    throw config.wrong(kvKey, `a divisor of num_attention_heads = ${numAttentionHeads} (default ${numKvHeads})`);
  const derived = family.headDim ?? config.integer('hidden_size', 1, limits.hiddenSize) / numAttentionHeads;
  const headDim = config.integer('head_dim', 2, limits.headDim, derived);
  if (!Number.isInteger(headDim))
    throw config.wrong('hidden_size', `a multiple of num_attention_heads = ${numAttentionHeads}, there being no head_dim,`);
  const what = config.has('head_dim') ? 'head_dim' : 'hidden_size';
  if (headDim % 2 !== 0) throw config.wrong(what, `an even head size (${headDim} does not split into halves to rotate)`);
  if (headDim > limits.headDim) throw config.wrong(what, `a head size of at most ${limits.headDim}`, 'ERR_UNSUPPORTED');
  return { numAttentionHeads, numKvHeads, headDim };
}

function parseBiases(config: ConfigReader, family: Family): Pick<ModelConfig, 'qkvBias' | 'oBias' | 'mlpBias'> {
  const decide = (rule: Family['qkvBias'] | Family['mlpBias']) => (typeof rule === 'string' ? config.boolean(rule, false) : rule);
  // Hugging Face would ignore these keys; a checkpoint that sets them means something else.
  for (const [key, rule] of [
    ['attention_bias', family.qkvBias],
    ['mlp_bias', family.mlpBias],
  ] as const) {
    if (rule === false && config.boolean(key, false)) throw config.wrong(key, 'false', 'ERR_UNSUPPORTED');
  }
  return { qkvBias: decide(family.qkvBias), oBias: decide(family.oBias), mlpBias: decide(family.mlpBias) };
}

/** generation_config.json takes precedence where it names a token; an explicit `null` in config.json means none. */
function parseEosTokenIds(
  config: ConfigReader,
  generation: ConfigReader | undefined,
  vocabSize: number,
  fallback: number | null,
): number[] {
  const key = 'eos_token_id';
  const source = generation?.has(key) ? generation : config;
  if (!source.hasKey(key)) return fallback === null ? [] : [fallback];
  const value = source.raw(key);
  const ids: unknown[] = Array.isArray(value) ? value : value === null ? [] : [value];
  for (const id of ids) {
    if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize) continue;
    throw new NdsError(
      'ERR_CONFIG',
      `Expected token ids from 0 to ${vocabSize - 1} for ${key} in ${source.file} but received ${describeJson(id)}`,
    );
  }
  return [...new Set(ids as number[])];
}
