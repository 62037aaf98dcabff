/** The supported architectures: what each computes, and the defaults that its Hugging Face class omits from config.json. */
import type { WindowRule } from './sliding-window.ts';

/** Properties of a decoder. */
export interface Family {
  /** Values of `model_type`, the common one first. */
  readonly modelTypes: readonly string[];
  /** Projections with a bias; a string names the key that decides. */
  readonly qkvBias: boolean | 'attention_bias' | 'qkv_bias';
  readonly oBias: boolean | 'attention_bias' | 'bias';
  readonly mlpBias: boolean | 'mlp_bias' | 'bias';
  /** Whether every query and key head is normalised. */
  readonly qkNorm: boolean;
  readonly windows: WindowRule;
  /** Whether `no_rope_layers` names layers without a rotary embedding; by default every fourth. */
  readonly hasNoRopeLayers: boolean;
  /** Whether `llama_4_scaling_beta` scales queries by their position. */
  readonly scalesQueries: boolean;
  /** `null` = as many as attention heads. */
  readonly numKvHeads: number | null;
  /** `null` = hidden_size / num_attention_heads. */
  readonly headDim: number | null;
  readonly maxPositionEmbeddings: number;
  readonly ropeTheta: number;
  readonly rmsNormEps: number;
  readonly tieWordEmbeddings: boolean;
  readonly eosTokenId: number | null;
}

/** A class in `architectures`: a decoder, or one beside a vision tower. */
export interface Architecture {
  /** `model_type` of the whole; `null` = the decoder's. */
  readonly modelType: string | null;
  /** Decoders that `text_config` may hold. Without that section the keys are those of the whole, of the first decoder. */
  readonly families: readonly [Family, ...Family[]];
}

const llama: Family = {
  modelTypes: ['llama'],
  qkvBias: 'attention_bias',
  oBias: 'attention_bias',
  mlpBias: 'mlp_bias',
  qkNorm: false,
  windows: 'none',
  hasNoRopeLayers: false,
  scalesQueries: false,
  numKvHeads: null,
  headDim: null,
  maxPositionEmbeddings: 2048,
  ropeTheta: 10000,
  rmsNormEps: 1e-6,
  tieWordEmbeddings: false,
  eosTokenId: 2,
};
const mistral: Family = {
  ...llama,
  modelTypes: ['mistral'],
  qkvBias: false,
  oBias: false,
  mlpBias: false,
  windows: 'every layer',
  numKvHeads: 8,
  maxPositionEmbeddings: 131072,
};
const qwen2: Family = {
  ...mistral,
  modelTypes: ['qwen2'],
  qkvBias: true,
  windows: 'upper layers',
  numKvHeads: 32,
  maxPositionEmbeddings: 32768,
  eosTokenId: null,
};
const qwen3: Family = { ...qwen2, modelTypes: ['qwen3'], qkvBias: 'attention_bias', oBias: 'attention_bias', qkNorm: true, headDim: 128 };
const ministral: Family = { ...mistral, modelTypes: ['ministral'], windows: 'layer types' };
const ministral3: Family = {
  ...mistral,
  modelTypes: ['ministral3'],
  windows: 'every layer, if given',
  scalesQueries: true,
  headDim: 128,
  maxPositionEmbeddings: 262144,
  ropeTheta: 1e6,
  rmsNormEps: 1e-5,
};
const smollm3: Family = {
  ...llama,
  modelTypes: ['smollm3'],
  windows: 'layers without RoPE',
  hasNoRopeLayers: true,
  numKvHeads: 4,
  maxPositionEmbeddings: 32768,
  ropeTheta: 2e6,
  tieWordEmbeddings: true,
  eosTokenId: 128001,
};
// Llama under other names, with biases of their own keys.
const internlm3: Family = {
  ...llama,
  modelTypes: ['internlm3'],
  qkvBias: 'qkv_bias',
  oBias: 'bias',
  mlpBias: 'bias',
  maxPositionEmbeddings: 32768,
};
const iquestcoder: Family = { ...llama, modelTypes: ['iquestcoder'] };
const qwen2VlText: Family = {
  ...qwen2,
  modelTypes: ['qwen2_vl_text', 'qwen2_5_vl_text'],
  numKvHeads: 8,
  ropeTheta: 1e6,
  rmsNormEps: 1e-5,
  eosTokenId: 151645,
};
const qwen3VlText: Family = { ...qwen3, modelTypes: ['qwen3_vl_text'], windows: 'none', maxPositionEmbeddings: 128000, ropeTheta: 5e5 };

const alone = (family: Family): Architecture => ({ modelType: null, families: [family] });

export const architectures = {
  LlamaForCausalLM: alone(llama),
  MistralForCausalLM: alone(mistral),
  MinistralForCausalLM: alone(ministral),
  Ministral3ForCausalLM: alone(ministral3),
  Qwen2ForCausalLM: alone(qwen2),
  Qwen3ForCausalLM: alone(qwen3),
  SmolLM3ForCausalLM: alone(smollm3),
  InternLM3ForCausalLM: alone(internlm3),
  IQuestCoderForCausalLM: alone(iquestcoder),
  Qwen2VLForConditionalGeneration: { modelType: 'qwen2_vl', families: [qwen2VlText] },
  Qwen2_5_VLForConditionalGeneration: { modelType: 'qwen2_5_vl', families: [qwen2VlText] },
  Qwen3VLForConditionalGeneration: { modelType: 'qwen3_vl', families: [qwen3VlText] },
  Mistral3ForConditionalGeneration: { modelType: 'mistral3', families: [mistral, ministral3] },
} as const satisfies Record<string, Architecture>;

/** The supported values of `architectures`. */
export type ArchitectureName = keyof typeof architectures;
