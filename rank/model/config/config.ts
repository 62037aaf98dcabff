/** The decoder's hyperparameters, validated, from the config.json of a Hugging Face checkpoint. */
import type { JsonObject } from '../json.ts';
import { ConfigReader } from './config-reader.ts';
import { type Architecture, type ArchitectureName, architectures, type Family } from './families.ts';
import { refuseForeignKeys } from './foreign-keys.ts';
import { parseQuantization, type Quantization } from './quantization.ts';
import { type ContextLengths, contextLengths, parseQueryScaling, parseRope, type QueryScaling, type RopeConfig } from './rope-config.ts';
import { parseSlidingWindows } from './sliding-window.ts';

/** A token of a prompt that stands for an image or video. */
export interface ImageToken {
  readonly id: number;
  /** The key of config.json that names it. */
  readonly key: string;
}

/** Hyperparameters of a model. */
export interface ModelConfig {
  /** Whether the folder holds a vision tower too, which is not read. */
  readonly isMultimodal: boolean;
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
  /** `[numHiddenLayers]` whether a layer rotates queries and keys. */
  readonly hasRope: readonly boolean[];
  readonly rope: RopeConfig;
  /** Queries are multiplied by 1 + beta ln(1 + ⌊position / length⌋). */
  readonly queryScaling: QueryScaling | null;
  readonly contextLengths: ContextLengths;
  /** Not served; empty for a text model. */
  readonly imageTokens: readonly ImageToken[];
  /** Of the weights; `null` = none. */
  readonly quantization: Quantization | null;
  /** End-of-sequence tokens; may be empty. */
  readonly eosTokenIds: readonly number[];
}

/** Max sizes; beyond them a file is wrong, or exceeds what kernels support. */
const limits = {
  hiddenSize: 2 ** 18,
  intermediateSize: 2 ** 20,
  numHiddenLayers: 1024,
  numAttentionHeads: 256,
  headDim: 256,
  // Of the masses of so many ids, each up to 2^44, the sum fits 64 bits.
  vocabSize: 2 ** 20 - 1,
  maxPositionEmbeddings: 2 ** 28,
} as const;

/**
 * Validates the object of a config.json.
 * @param file - its path, named in errors
 * @param generation - generation_config.json, if there is one
 * @throws NdsError `ERR_CONFIG` for a key that is missing or of a wrong type or value, `ERR_UNSUPPORTED` for what is
 * not implemented.
 */
export function parseConfig(object: JsonObject, file: string, generation?: ConfigReader): ModelConfig {
  const whole = new ConfigReader(file, object);
  const { architecture, family, config } = parseArchitecture(whole);
  const silu = ['silu', 'swish'];
  if (!silu.includes((config.raw('hidden_act') ?? 'silu') as string)) throw config.wrong('hidden_act', '"silu"', 'ERR_UNSUPPORTED');
  const maxPositionEmbeddings = config.integer('max_position_embeddings', 1, limits.maxPositionEmbeddings, family.maxPositionEmbeddings);
  const numHiddenLayers = config.integer('num_hidden_layers', 1, limits.numHiddenLayers);
  const vocabSize = config.integer('vocab_size', 1, limits.vocabSize);
  const heads = parseHeads(config, family);
  const hasRope = parseRopeLayers(config, family, numHiddenLayers);
  refuseForeignKeys(config, { headDim: heads.headDim, maxPositionEmbeddings });
  const isMultimodal = architecture.modelType !== null;
  const rope = parseRope(config, { maxPositionEmbeddings, headDim: heads.headDim, theta: family.ropeTheta, hasSections: isMultimodal });
  // A class of text and images ties by its own key.
  const tied = whole.has('tie_word_embeddings') ? whole : config;
  return {
    isMultimodal,
    hiddenSize: config.integer('hidden_size', 1, limits.hiddenSize),
    intermediateSize: config.integer('intermediate_size', 1, limits.intermediateSize),
    numHiddenLayers,
    ...heads,
    vocabSize,
    maxPositionEmbeddings,
    rmsNormEps: config.numberAbove('rms_norm_eps', 0, family.rmsNormEps),
    tieWordEmbeddings: tied.boolean('tie_word_embeddings', family.tieWordEmbeddings),
    ...parseBiases(config, family),
    qkNorm: family.qkNorm,
    slidingWindows: parseSlidingWindows(config, family.windows, hasRope),
    hasRope,
    rope,
    queryScaling: family.scalesQueries ? parseQueryScaling(config, maxPositionEmbeddings) : null,
    contextLengths: contextLengths(rope, maxPositionEmbeddings),
    imageTokens: isMultimodal ? parseImageTokens(whole) : [],
    quantization: parseQuantization(whole.has('quantization_config') ? whole : config),
    eosTokenIds: parseEosTokenIds(generation, [whole, config], vocabSize, family.eosTokenId),
  };
}

/** The class, and the reader of its decoder's keys: those below `text_config`, where there is one. */
function parseArchitecture(whole: ConfigReader): { architecture: Architecture; family: Family; config: ConfigReader } {
  const supported = Object.keys(architectures).join(', ');
  const value = whole.raw('architectures');
  if (!Array.isArray(value) || value.length !== 1 || typeof value[0] !== 'string')
    throw whole.wrong('architectures', `a list of one of ${supported}`);
  const name: string = value[0];
  if (!Object.hasOwn(architectures, name)) throw whole.wrong('architectures', `one of ${supported}`, 'ERR_UNSUPPORTED');
  const architecture: Architecture = architectures[name as ArchitectureName];
  const [first, ...others] = architecture.families;
  const text = architecture.modelType === null ? undefined : whole.section('text_config');
  const wholeTypes = architecture.modelType === null ? first.modelTypes : [architecture.modelType];
  requireModelType(whole, wholeTypes, name);
  if (text === undefined) return { architecture, family: first, config: whole };
  const family = [first, ...others].find(({ modelTypes }) => modelTypes.includes(text.raw('model_type') as string));
  if (family === undefined && text.has('model_type')) {
    const types = architecture.families.flatMap(({ modelTypes }) => modelTypes).join(' or ');
    throw text.wrong('model_type', `${types}, as ${name} has it,`, 'ERR_UNSUPPORTED');
  }
  return { architecture, family: family ?? first, config: text };
}

function requireModelType(config: ConfigReader, types: readonly string[], name: string): void {
  if (config.has('model_type') && !types.includes(config.raw('model_type') as string))
    throw config.wrong('model_type', `"${types.join('" or "')}", as ${name} has it,`);
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

/** Biases by the family's rule. Where Hugging Face ignores a key, a bias in the checkpoint is refused as an unknown tensor. */
function parseBiases(config: ConfigReader, family: Family): Pick<ModelConfig, 'qkvBias' | 'oBias' | 'mlpBias'> {
  const decide = (rule: boolean | string) => (typeof rule === 'string' ? config.boolean(rule, false) : rule);
  return { qkvBias: decide(family.qkvBias), oBias: decide(family.oBias), mlpBias: decide(family.mlpBias) };
}

/** `[numLayers]` whether a layer rotates queries and keys; `no_rope_layers` has 1 for those that do. */
function parseRopeLayers(config: ConfigReader, family: Family, numLayers: number): boolean[] {
  const key = 'no_rope_layers';
  const value = config.raw(key) ?? null;
  if (value === null) {
    const interval = family.hasNoRopeLayers ? config.integer('no_rope_layer_interval', 1, limits.numHiddenLayers + 1, 4) : 0;
    return Array.from({ length: numLayers }, (_, layer) => interval === 0 || (layer + 1) % interval !== 0);
  }
  if (!Array.isArray(value) || value.length !== numLayers || value.some((x) => x !== 0 && x !== 1))
    throw config.wrong(key, `a list of num_hidden_layers = ${numLayers} numbers, 1 = a layer with RoPE and 0 = one without`);
  if (!family.hasNoRopeLayers && value.includes(0)) throw config.wrong(key, 'RoPE in every layer', 'ERR_UNSUPPORTED');
  return value.map((x) => x === 1);
}

/** Tokens that stand for an image or video, by the key that names them. */
function parseImageTokens(whole: ConfigReader): ImageToken[] {
  const keys = ['image_token_id', 'image_token_index', 'video_token_id'];
  return keys.filter((key) => whole.has(key)).map((key) => ({ id: whole.integer(key, 0, limits.vocabSize), key }));
}

/**
 * generation_config.json takes precedence where it names a token, then the first of `sources` with the key; an explicit
 * `null` there means none. Ids that no vocabulary holds never end a text.
 */
function parseEosTokenIds(
  generation: ConfigReader | undefined,
  sources: readonly ConfigReader[],
  vocabSize: number,
  fallback: number | null,
): number[] {
  const key = 'eos_token_id';
  const source = generation?.has(key) ? generation : sources.find((reader) => reader.hasKey(key));
  if (source === undefined) return fallback === null ? [] : [fallback];
  const value = source.raw(key);
  const ids: unknown[] = Array.isArray(value) ? value : value === null ? [] : [value];
  if (!ids.every(Number.isInteger)) throw source.wrong(key, 'token ids');
  return [...new Set(ids as number[])].filter((id) => id >= 0 && id < vocabSize);
}
