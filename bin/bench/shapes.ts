/** Shapes of known models, whose weights a benchmark makes up. Pure. */
import { NdsError } from '../../protocol/errors.ts';
import { nearest } from '../../protocol/nearest.ts';

/** Sizes of a model. */
export interface Sizes {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly isTied: boolean;
  /** Qwen3 normalizes queries and keys; Llama does not. */
  readonly family: 'qwen3' | 'llama';
}

const vocab = { qwen3: 151_936, llama: 128_256 };
const qwen3 = {
  numHeads: 16,
  numKvHeads: 8,
  headDim: 128,
  vocabSize: vocab.qwen3,
  maxPositions: 40_960,
  isTied: true,
  family: 'qwen3',
} as const;
const llama = { headDim: 64, isTied: true, family: 'llama' } as const;

/** By name, as `--shape` takes them. */
export const shapes: Readonly<Record<string, Sizes>> = {
  'story-5m': {
    ...qwen3,
    ...{
      hiddenSize: 256,
      intermediateSize: 768,
      numLayers: 6,
      numHeads: 8,
      numKvHeads: 4,
      headDim: 32,
      vocabSize: 2048,
      maxPositions: 4096,
    },
  },
  'smollm2-135m': {
    ...llama,
    ...{ hiddenSize: 576, intermediateSize: 1536, numLayers: 30, numHeads: 9, numKvHeads: 3, vocabSize: 49_152, maxPositions: 8192 },
  },
  'smollm2-360m': {
    ...llama,
    ...{ hiddenSize: 960, intermediateSize: 2560, numLayers: 32, numHeads: 15, numKvHeads: 5, vocabSize: 49_152, maxPositions: 8192 },
  },
  'qwen3-0.6b': { ...qwen3, hiddenSize: 1024, intermediateSize: 3072, numLayers: 28 },
  'llama-3.2-1b': {
    ...llama,
    ...{
      hiddenSize: 2048,
      intermediateSize: 8192,
      numLayers: 16,
      numHeads: 32,
      numKvHeads: 8,
      vocabSize: vocab.llama,
      maxPositions: 131_072,
    },
  },
  'qwen3-1.7b': { ...qwen3, hiddenSize: 2048, intermediateSize: 6144, numLayers: 28 },
  'llama-3.2-3b': {
    ...llama,
    ...{
      hiddenSize: 3072,
      intermediateSize: 8192,
      numLayers: 28,
      numHeads: 24,
      numKvHeads: 8,
      headDim: 128,
      vocabSize: vocab.llama,
      maxPositions: 131_072,
    },
  },
  'qwen3-4b': { ...qwen3, hiddenSize: 2560, intermediateSize: 9728, numLayers: 36, numHeads: 32 },
  'qwen3-8b': { ...qwen3, hiddenSize: 4096, intermediateSize: 12_288, numLayers: 36, numHeads: 32, isTied: false },
};

/** The value of `--shape`. @throws NdsError `ERR_USAGE` for a name that there is none of. */
export function shapeName(value: string, where: string): string {
  if (Object.hasOwn(shapes, value)) return value;
  const near = nearest(value, Object.keys(shapes));
  const hint = near === null ? '' : ` (did you mean ${near}?)`;
  throw new NdsError('ERR_USAGE', `Expected ${Object.keys(shapes).join(', ')} for ${where} but received "${value}"${hint}`);
}

/** One tensor of a made-up checkpoint. */
export interface TensorShape {
  readonly name: string;
  readonly shape: readonly number[];
  /** Standard deviation of its values; null = all ones. */
  readonly deviation: number | null;
}

/**
 * Tensors of a shape, in file order. Deviations keep activations near one: a matrix of n inputs has 1/√n, and those that
 * add to the residual stream are smaller by √(2 × layers).
 */
export function tensorsOf(sizes: Sizes): TensorShape[] {
  const { hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim, vocabSize, isTied, family } = sizes;
  const residual = (2 * numLayers) ** -0.5;
  const matrix = (name: string, numRows: number, numCols: number, scale = 1) => ({
    name: `${name}.weight`,
    shape: [numRows, numCols],
    deviation: scale * numCols ** -0.5,
  });
  const ones = (name: string, size: number) => ({ name: `${name}.weight`, shape: [size], deviation: null });
  const layer = (i: number): TensorShape[] => {
    const [attention, mlp] = [`model.layers.${i}.self_attn`, `model.layers.${i}.mlp`];
    return [
      ones(`model.layers.${i}.input_layernorm`, hiddenSize),
      ones(`model.layers.${i}.post_attention_layernorm`, hiddenSize),
      matrix(`${attention}.q_proj`, numHeads * headDim, hiddenSize),
      matrix(`${attention}.k_proj`, numKvHeads * headDim, hiddenSize),
      matrix(`${attention}.v_proj`, numKvHeads * headDim, hiddenSize),
      matrix(`${attention}.o_proj`, hiddenSize, numHeads * headDim, residual),
      ...(family === 'qwen3' ? [ones(`${attention}.q_norm`, headDim), ones(`${attention}.k_norm`, headDim)] : []),
      matrix(`${mlp}.gate_proj`, intermediateSize, hiddenSize),
      matrix(`${mlp}.up_proj`, intermediateSize, hiddenSize),
      matrix(`${mlp}.down_proj`, hiddenSize, intermediateSize, residual),
    ];
  };
  return [
    matrix('model.embed_tokens', vocabSize, hiddenSize),
    ...(isTied ? [] : [matrix('lm_head', vocabSize, hiddenSize)]),
    ...Array.from({ length: numLayers }, (_, i) => layer(i)).flat(),
    ones('model.norm', hiddenSize),
  ];
}

/** config.json of a shape. */
export function configOf(sizes: Sizes): Record<string, unknown> {
  const { family, vocabSize } = sizes;
  return {
    architectures: [family === 'qwen3' ? 'Qwen3ForCausalLM' : 'LlamaForCausalLM'],
    model_type: family,
    hidden_size: sizes.hiddenSize,
    intermediate_size: sizes.intermediateSize,
    num_hidden_layers: sizes.numLayers,
    num_attention_heads: sizes.numHeads,
    num_key_value_heads: sizes.numKvHeads,
    head_dim: sizes.headDim,
    vocab_size: vocabSize,
    tie_word_embeddings: sizes.isTied,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
    max_position_embeddings: sizes.maxPositions,
    hidden_act: 'silu',
    attention_bias: false,
    torch_dtype: 'bfloat16',
    bos_token_id: 0,
    eos_token_id: 0,
  };
}
