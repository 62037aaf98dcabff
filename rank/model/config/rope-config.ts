/** The rotary embedding of a config.json, in either of its two layouts. */
import type { ConfigReader } from './config-reader.ts';

const maxLength = 2 ** 30;

/** Parameters of a rotary embedding; `theta` is the base of the wavelengths. */
export type RopeConfig =
  | { readonly type: 'default'; readonly theta: number }
  /** Equals `default` up to `max_position_embeddings`; beyond, frequencies depend on the longest context that is served. */
  | { readonly type: 'dynamic'; readonly theta: number; readonly factor: number }
  | { readonly type: 'linear'; readonly theta: number; readonly factor: number; readonly originalMaxPositionEmbeddings: number }
  | {
      readonly type: 'llama3';
      readonly theta: number;
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    }
  | {
      readonly type: 'yarn';
      readonly theta: number;
      readonly factor: number;
      /** Multiplies cos and sin. */
      readonly attentionFactor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
      readonly originalMaxPositionEmbeddings: number;
    }
  | {
      readonly type: 'longrope';
      readonly theta: number;
      /** `[headDim / 2]` divisors of the frequencies for contexts up to the original length, and for longer ones. */
      readonly shortFactor: readonly number[];
      readonly longFactor: readonly number[];
      /** Multiplies cos and sin. */
      readonly attentionFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    };

/** Tokens of a sequence: by default, and at most. */
export interface ContextLengths {
  readonly default: number;
  readonly max: number;
}

/**
 * yarn and linear serve the original length times their factor. dynamic and longrope have other frequencies for longer
 * contexts, even for the first tokens: these are used where a longer context is asked for.
 */
export function contextLengths(rope: RopeConfig, maxPositionEmbeddings: number): ContextLengths {
  const stretched = (original: number, factor: number) =>
    Math.min(Math.max(maxPositionEmbeddings, Math.floor(original * factor)), maxLength);
  switch (rope.type) {
    case 'linear':
    case 'yarn': {
      const length = stretched(rope.originalMaxPositionEmbeddings, rope.factor);
      return { default: length, max: length };
    }
    case 'dynamic':
      return { default: maxPositionEmbeddings, max: stretched(maxPositionEmbeddings, rope.factor) };
    case 'longrope':
      return { default: Math.min(rope.originalMaxPositionEmbeddings, maxPositionEmbeddings), max: maxPositionEmbeddings };
    default:
      return { default: maxPositionEmbeddings, max: maxPositionEmbeddings };
  }
}

const supported = 'default, linear, dynamic, llama3, yarn or longrope';
/** Keys of other kinds of embeddings. */
const foreignKeys = ['full_attention', 'sliding_attention'];

/** What a rotary embedding depends on besides its section. */
export interface RopeFacts {
  readonly maxPositionEmbeddings: number;
  readonly headDim: number;
  /** The family's default base. */
  readonly theta: number;
  /** Whether the family rotates the tokens of images by several positions. */
  readonly hasSections: boolean;
}

/**
 * Reads `rope_scaling` (with `rope_theta` beside it) or, where that is absent, `rope_parameters` (with `rope_theta` inside).
 * @throws NdsError `ERR_CONFIG` or `ERR_UNSUPPORTED` naming the key.
 */
export function parseRope(config: ConfigReader, facts: RopeFacts): RopeConfig {
  const { maxPositionEmbeddings, headDim, hasSections } = facts;
  const rope = ropeSection(config);
  for (const key of foreignKeys) if (rope?.has(key)) throw rope.wrong(key, 'no value', 'ERR_UNSUPPORTED');
  if (rope !== undefined) checkSections(rope, facts);
  for (const section of [config, rope]) {
    if (section?.has('partial_rotary_factor') && section.numberAbove('partial_rotary_factor', 0) !== 1) {
      throw section.wrong('partial_rotary_factor', '1', 'ERR_UNSUPPORTED');
    }
  }
  const theta = rope?.has('rope_theta') ? rope.numberAbove('rope_theta', 1) : config.numberAbove('rope_theta', 1, facts.theta);
  if (rope === undefined) return { type: 'default', theta };

  const typeKey = rope.has('rope_type') ? 'rope_type' : 'type';
  const type = rope.raw(typeKey) ?? 'default';
  if (typeof type !== 'string') throw rope.wrong(typeKey, supported);
  const original = () => originalLength(config, rope, maxPositionEmbeddings);
  switch (type) {
    case 'mrope':
      if (!hasSections) throw rope.wrong(typeKey, supported, 'ERR_UNSUPPORTED');
      return { type: 'default', theta };
    case 'default':
      return { type, theta };
    case 'dynamic':
      return { type, theta, factor: rope.numberAbove('factor', 0) };
    case 'linear':
      return { type, theta, factor: rope.numberAbove('factor', 0), originalMaxPositionEmbeddings: original() };
    case 'llama3':
      return parseLlama3(rope, theta, original());
    case 'yarn':
      return parseYarn(rope, theta, original(), maxPositionEmbeddings);
    case 'longrope':
      return parseLongrope(rope, theta, original(), maxPositionEmbeddings, headDim);
    default:
      throw rope.wrong(typeKey, supported, 'ERR_UNSUPPORTED');
  }
}

/**
 * Frequencies shared out between time, height and width of an image. A text token has one position for all three, so
 * that it is rotated as without sections.
 */
function checkSections(rope: ConfigReader, { hasSections, headDim }: RopeFacts): void {
  const [key, order] = ['mrope_section', 'mrope_interleaved'];
  for (const name of [key, order]) if (!hasSections && rope.has(name)) throw rope.wrong(name, 'no value', 'ERR_UNSUPPORTED');
  if (!rope.has(key)) return;
  const sizes = rope.raw(key);
  const isComplete = Array.isArray(sizes) && sizes.length === 3 && sizes.reduce((sum, n) => sum + n, 0) === headDim / 2;
  if (!isComplete) throw rope.wrong(key, `three sizes that make ${headDim / 2}, half the head size,`);
}

/** Queries are multiplied by 1 + beta ln(1 + ⌊position / length⌋). */
export interface QueryScaling {
  readonly beta: number;
  readonly length: number;
}

/** Ministral 3's scaling of queries, beside the rotary embedding; `null` = none. @throws NdsError `ERR_CONFIG` naming the key. */
export function parseQueryScaling(config: ConfigReader, maxPositionEmbeddings: number): QueryScaling | null {
  const rope = ropeSection(config);
  const key = 'llama_4_scaling_beta';
  if (rope === undefined || !rope.has(key) || rope.raw(key) === 0) return null;
  return { beta: rope.numberAbove(key, 0), length: originalLength(config, rope, maxPositionEmbeddings) };
}

function ropeSection(config: ConfigReader): ConfigReader | undefined {
  const scaling = config.section('rope_scaling');
  return scaling !== undefined && scaling.keys().length > 0 ? scaling : config.section('rope_parameters');
}

/** A length beside the section takes precedence over one inside it; without either the context was not extended. */
function originalLength(config: ConfigReader, rope: ConfigReader, maxPositionEmbeddings: number): number {
  const key = 'original_max_position_embeddings';
  return (config.has(key) ? config : rope).integer(key, 1, maxLength, maxPositionEmbeddings);
}

function parseLlama3(rope: ConfigReader, theta: number, originalMaxPositionEmbeddings: number): RopeConfig {
  const factor = rope.numberAbove('factor', 0);
  const lowFreqFactor = rope.numberAbove('low_freq_factor', 0);
  const highFreqFactor = rope.numberAbove('high_freq_factor', lowFreqFactor);
  return { type: 'llama3', theta, factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings };
}

function parseYarn(rope: ConfigReader, theta: number, originalMaxPositionEmbeddings: number, maxPositionEmbeddings: number): RopeConfig {
  const derived = rope.hasKey('factor') ? maxPositionEmbeddings / originalMaxPositionEmbeddings : undefined;
  const factor = rope.numberAbove('factor', 0, derived);
  return {
    type: 'yarn',
    theta,
    factor,
    attentionFactor: rope.has('attention_factor') ? rope.numberAbove('attention_factor', 0) : yarnAttentionFactor(rope, factor),
    betaFast: positiveOr(rope, 'beta_fast', 32),
    betaSlow: positiveOr(rope, 'beta_slow', 1),
    truncate: rope.boolean('truncate', true),
    originalMaxPositionEmbeddings,
  };
}

/** LongRoPE (arXiv:2402.13753), with the attention factor √(1 + ln factor / ln original) that Hugging Face computes. */
function parseLongrope(
  rope: ConfigReader,
  theta: number,
  originalMaxPositionEmbeddings: number,
  maxPositionEmbeddings: number,
  headDim: number,
): RopeConfig {
  const factors = (key: string): readonly number[] => {
    const value = rope.raw(key);
    const isFactors = Array.isArray(value) && value.length === headDim / 2 && value.every((x) => typeof x === 'number' && x > 0);
    if (!isFactors) throw rope.wrong(key, `a list of ${headDim / 2} numbers above 0`);
    return value;
  };
  const derived = maxPositionEmbeddings / originalMaxPositionEmbeddings;
  const factor = rope.has('factor') ? rope.numberAbove('factor', 0) : derived;
  const computed = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositionEmbeddings));
  return {
    type: 'longrope',
    theta,
    shortFactor: factors('short_factor'),
    longFactor: factors('long_factor'),
    attentionFactor: rope.has('attention_factor') ? rope.numberAbove('attention_factor', 0) : computed,
    originalMaxPositionEmbeddings,
  };
}

/** 0.1 ln(factor) + 1 (YaRN, arXiv:2309.00071, section 3.4), or DeepSeek's quotient of two such. */
function yarnAttentionFactor(rope: ConfigReader, factor: number): number {
  const temper = (mscale: number) => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);
  const mscale = positiveOr(rope, 'mscale', 0);
  const mscaleAllDim = positiveOr(rope, 'mscale_all_dim', 0);
  return mscale !== 0 && mscaleAllDim !== 0 ? temper(mscale) / temper(mscaleAllDim) : temper(1);
}

/** 0 counts as absent, as in Hugging Face. */
function positiveOr(rope: ConfigReader, key: string, fallback: number): number {
  return rope.raw(key) === 0 ? fallback : rope.numberAbove(key, 0, fallback);
}
