/** Keys of other families that change what a model computes: refused by name unless their value changes nothing. */
import type { ConfigReader } from './config-reader.ts';

/** What decides whether a value changes anything. */
interface Facts {
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
}

interface ForeignKey {
  /** The value that changes nothing, as an error says it. */
  readonly harmless: string;
  readonly isHarmless: (value: unknown, facts: Facts) => boolean;
}

/** Multiplies something by the value. */
const factor: ForeignKey = { harmless: '1', isHarmless: (value) => value === 1 };
/** Caps something at the value, and by Hugging Face's convention nothing where it is 0. */
const cap: ForeignKey = { harmless: 'no value', isHarmless: (value) => value === 0 };
/** Counts experts of a mixture; 0 = a dense model. */
const count: ForeignKey = { harmless: '0', isHarmless: (value) => value === 0 };
const never: ForeignKey = { harmless: 'no value', isHarmless: () => false };

const foreignKeys: Readonly<Record<string, ForeignKey>> = {
  /** Attention within chunks: of a context that is one chunk, to all of it. */
  attention_chunk_size: {
    harmless: 'at least max_position_embeddings',
    isHarmless: (value, { maxPositionEmbeddings }) => typeof value === 'number' && value >= maxPositionEmbeddings,
  },
  /** Scale of attention scores: every family here has 1 / √head_dim. */
  attention_multiplier: {
    harmless: '1 / √head_dim',
    isHarmless: (value, { headDim }) => typeof value === 'number' && Math.abs(value * Math.sqrt(headDim) - 1) < 1e-6,
  },
  attn_logit_softcapping: cap,
  clip_qkv: cap,
  embedding_multiplier: factor,
  final_logit_softcapping: cap,
  logit_scale: factor,
  logits_scaling: factor,
  num_experts: count,
  num_local_experts: count,
  n_routed_experts: count,
  /** Attention scores are divided by its square root. */
  query_pre_attn_scalar: { harmless: 'head_dim', isHarmless: (value, { headDim }) => value === headDim },
  residual_multiplier: factor,
  scale_depth: never,
  scale_emb: factor,
  use_qk_norm: never,
};

/** @throws NdsError `ERR_UNSUPPORTED` naming the key; `null` and `false` count as absent. */
export function refuseForeignKeys(config: ConfigReader, facts: Facts): void {
  for (const [key, { harmless, isHarmless }] of Object.entries(foreignKeys)) {
    const value = config.raw(key) ?? false;
    if (value === false || isHarmless(value, facts)) continue;
    throw config.wrong(key, harmless === 'no value' ? harmless : `${harmless} or no value`, 'ERR_UNSUPPORTED');
  }
}
