/** The made-up checkpoint of a shape as llama.cpp reads it: names, metadata, vocabulary and the order of rows. Pure. */
import { configOf, type Sizes, type TensorShape, tensorsOf } from '../../../bin/bench/shapes.ts';
import { SyntheticValues } from '../../../bin/bench/synthetic-values.ts';
import { type GgmlType, ggmlTypes } from './ggml-blocks.ts';
import { type GgufTensor, type GgufValue, tensorBytes } from './gguf-file.ts';

/** Formats of weights, by our names: stored bf16, `quantization: 'int8'` and `'int4'`. */
export const formats = ['bf16', 'int8', 'int4'] as const;
export type Format = (typeof formats)[number];

/** llama.cpp's name of a format. */
export const peerFormats: Readonly<Record<Format, string>> = { bf16: 'BF16', int8: 'Q8_0', int4: 'Q4_0' };

/** `LLAMA_FTYPE_MOSTLY_*` */
const fileTypes: Readonly<Record<Format, number>> = { bf16: 32, int8: 7, int4: 2 };

/** Hugging Face's names of a layer's parts, and GGUF's. */
const partNames: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
};

/** `model.layers.3.mlp.up_proj.weight` → `blk.3.ffn_up.weight`. */
export function ggufName(name: string): string {
  const [, layer, part = ''] = /^(?:model\.layers\.(\d+)\.)?(.*)\.weight$/.exec(name) ?? [];
  if (!Object.hasOwn(partNames, part)) throw new Error(`Expected a tensor of a known part but received ${name}`);
  return `${layer === undefined ? '' : `blk.${layer}.`}${partNames[part]}.weight`;
}

/**
 * The tensors of a shape in a format, with the values that ndsrun's made-up checkpoint has in bf16. Norms are float32.
 * Types are those that `llama-quantize` chooses: beside Q4_0, the LM head is Q6_K, or Q8_0 where rows are no whole blocks
 * of it.
 */
export function ggufTensors(sizes: Sizes, format: Format): GgufTensor[] {
  const tensors = tensorsOf(sizes);
  const values = new SyntheticValues(tensors);
  return tensors.map((tensor, i) => ({
    name: ggufName(tensor.name),
    shape: tensor.shape,
    type: typeOf(tensor, sizes, format),
    rows: (firstRow, numRows) => rowsOf(values, i, tensor, sizes, firstRow, numRows),
  }));
}

/** Bytes of weights that a decoded token reads: all but the rows of an embedding that is no LM head. */
export function bytesRead(sizes: Sizes, format: Format): number {
  const read = tensorsOf(sizes).filter(({ name }) => sizes.isTied || !name.startsWith('model.embed_tokens'));
  return read.reduce((sum, tensor) => sum + tensorBytes({ shape: tensor.shape, type: typeOf(tensor, sizes, format) }), 0);
}

function typeOf({ name, shape, deviation }: TensorShape, { isTied }: Sizes, format: Format): GgmlType {
  if (deviation === null) return ggmlTypes.F32;
  if (format === 'bf16') return ggmlTypes.BF16;
  if (format === 'int8') return ggmlTypes.Q8_0;
  const isHead = name.startsWith(isTied ? 'model.embed_tokens' : 'lm_head');
  if (!isHead) return ggmlTypes.Q4_0;
  return (shape[1] as number) % ggmlTypes.Q6_K.blockSize === 0 ? ggmlTypes.Q6_K : ggmlTypes.Q8_0;
}

/** Rows of a tensor as they lie in the file. */
function rowsOf(
  values: SyntheticValues,
  i: number,
  { name, shape }: TensorShape,
  { family, headDim }: Sizes,
  firstRow: number,
  numRows: number,
): Uint16Array {
  const numCols = shape.at(-1) as number;
  const out = new Uint16Array(numRows * numCols);
  const copy = (row: number, count: number, to: number) => {
    let at = to;
    for (const piece of values.pieces(i, row * numCols, (row + count) * numCols)) {
      out.set(piece, at);
      at += piece.length;
    }
  };
  // llama.cpp rotates adjacent pairs of a Llama head, checkpoints halves: row 2 j + s of a head is row s headDim / 2 + j.
  if (family === 'llama' && /\.[qk]_proj\./.test(name)) {
    for (let r = 0; r < numRows; r++) {
      const [head, inHead] = [Math.floor((firstRow + r) / headDim), (firstRow + r) % headDim];
      copy(head * headDim + (inHead % 2) * (headDim / 2) + Math.floor(inHead / 2), 1, r * numCols);
    }
  } else copy(firstRow, numRows, 0);
  return out;
}

/** Metadata of a shape, with a byte-level vocabulary that has no other use than its size. */
export function ggufMetadata(name: string, sizes: Sizes, format: Format): Record<string, GgufValue> {
  const { family, vocabSize, headDim } = sizes;
  const config = configOf(sizes);
  const tokens = vocabulary(vocabSize);
  return {
    'general.architecture': { string: family },
    'general.name': { string: name },
    'general.file_type': { uint32: fileTypes[format] },
    // Of the quantized types' layout, which has not changed since.
    'general.quantization_version': { uint32: 2 },
    [`${family}.context_length`]: { uint32: sizes.maxPositions },
    [`${family}.embedding_length`]: { uint32: sizes.hiddenSize },
    [`${family}.block_count`]: { uint32: sizes.numLayers },
    [`${family}.feed_forward_length`]: { uint32: sizes.intermediateSize },
    [`${family}.attention.head_count`]: { uint32: sizes.numHeads },
    [`${family}.attention.head_count_kv`]: { uint32: sizes.numKvHeads },
    [`${family}.attention.key_length`]: { uint32: headDim },
    [`${family}.attention.value_length`]: { uint32: headDim },
    [`${family}.attention.layer_norm_rms_epsilon`]: { float32: config['rms_norm_eps'] as number },
    [`${family}.rope.dimension_count`]: { uint32: headDim },
    [`${family}.rope.freq_base`]: { float32: config['rope_theta'] as number },
    [`${family}.vocab_size`]: { uint32: vocabSize },
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: 'default' },
    'tokenizer.ggml.tokens': { strings: tokens },
    // 1 = an ordinary token, 3 = a control token.
    'tokenizer.ggml.token_type': { int32s: tokens.map((_, id) => (id < vocabSize - 1 ? 1 : 3)) },
    'tokenizer.ggml.merges': { strings: ['a b'] },
    'tokenizer.ggml.bos_token_id': { uint32: vocabSize - 1 },
    'tokenizer.ggml.eos_token_id': { uint32: vocabSize - 1 },
    'tokenizer.ggml.add_bos_token': { bool: false },
  };
}

/** `[vocabSize]` distinct tokens: GPT-2's characters for the 256 bytes, which llama.cpp looks up, then numbered ones. */
function vocabulary(vocabSize: number): string[] {
  const isPrintable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const others = bytes.filter((byte) => !isPrintable(byte));
  const characters = [...bytes.filter(isPrintable), ...others.map((_, i) => 256 + i)].map((code) => String.fromCharCode(code));
  return Array.from({ length: vocabSize }, (_, id) => characters[id] ?? (id === 256 ? 'ab' : id === vocabSize - 1 ? '<|end|>' : `<${id}>`));
}
