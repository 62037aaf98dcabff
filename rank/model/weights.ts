/** The tensors of a decoder by name and shape; others are refused. */
import { describeJson, NdsError } from '../../protocol/errors.ts';
import type { DType } from '../program-spec.ts';
import { findLayout, type SkippedTensors } from './checkpoint/layout.ts';
import type { StoredTensor } from './checkpoint/safetensors.ts';
import type { ModelConfig } from './config/config.ts';
import type { Quantization } from './config/quantization.ts';
import { findIntegers, readIntegers, type TensorIntegers } from './stored-integers.ts';
import { storedType, type TensorScales } from './stored-types.ts';

/** A matrix `[numRows, numCols]` of a checkpoint, or a vector as one row. */
export interface Tensor {
  readonly name: string;
  /** Path of its file, and the data's offset in it. */
  readonly path: string;
  readonly byteOffset: number;
  /** Type of its values: as stored, or bfloat16 with `fp8` or `integers`. */
  readonly dtype: DType;
  /** Set where it is stored as float8_e4m3. */
  readonly fp8: TensorScales | null;
  /** Set where it is stored as integers; path and offset are theirs. */
  readonly integers: TensorIntegers | null;
  readonly numRows: number;
  readonly numCols: number;
}

/** y = x Wᵀ + b with weight `[outFeatures, inFeatures]`. */
export interface LinearTensors {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
}

/** Tensors of one decoder layer. */
export interface LayerTensors {
  readonly inputLayernorm: Tensor;
  readonly qProj: LinearTensors;
  readonly kProj: LinearTensors;
  readonly vProj: LinearTensors;
  /** RMS norms of each query and key head; `null` in families without. */
  readonly qNorm: Tensor | null;
  readonly kNorm: Tensor | null;
  readonly oProj: LinearTensors;
  readonly postAttentionLayernorm: Tensor;
  readonly gateProj: LinearTensors;
  readonly upProj: LinearTensors;
  readonly downProj: LinearTensors;
}

/** Tensors of a whole model. */
export interface ModelTensors {
  readonly embedTokens: Tensor;
  readonly layers: readonly LayerTensors[];
  readonly norm: Tensor;
  /** `embedTokens` where the two are tied. */
  readonly lmHead: Tensor;
  /** What the folder holds besides, e.g. a vision tower. */
  readonly skipped: readonly SkippedTensors[];
}

/** Buffers in old checkpoints, derived from the configuration. */
const derivedTensor = /(^|\.)rotary_emb\.inv_freq$/;

/** Scales for a KV cache of 8-bit floats. Ours has other types, so that they change nothing. */
const kvCacheScale = /\.self_attn\.[kv]_scale$/;

/**
 * Finds every tensor that `config` asks for. Where embeddings are tied, a separate `lm_head.weight` still counts, as
 * for Hugging Face: an equal one changes nothing, a different one shows that they were never tied.
 * @throws NdsError `ERR_TENSOR` naming a tensor that is missing, unknown, of a wrong shape or of an unsupported type.
 */
export function findTensors(config: ModelConfig, stored: ReadonlyMap<string, StoredTensor>, folder: string): ModelTensors {
  const finder = new Finder(stored, config.quantization, folder);
  const { hiddenSize, vocabSize, tieWordEmbeddings } = config;
  const layout = findLayout(stored, config.isMultimodal);
  const embedding = `${layout.text}embed_tokens.weight`;
  const head = `${layout.head}lm_head.weight`;
  const tiedTo = (name: string, other: string) => (tieWordEmbeddings && !finder.has(name) && finder.has(other) ? other : name);
  const tensors = {
    embedTokens: finder.matrix(tiedTo(embedding, head), vocabSize, hiddenSize),
    layers: Array.from({ length: config.numHiddenLayers }, (_, layer) => findLayer(finder, config, `${layout.text}layers.${layer}`)),
    norm: finder.vector(`${layout.text}norm.weight`, hiddenSize),
    lmHead: finder.matrix(tiedTo(head, embedding), vocabSize, hiddenSize),
  };
  return { ...tensors, skipped: finder.skipOthers(layout.others) };
}

function findLayer(finder: Finder, config: ModelConfig, prefix: string): LayerTensors {
  const { hiddenSize, intermediateSize, headDim, qkvBias, oBias, mlpBias, qkNorm } = config;
  const qSize = config.numAttentionHeads * headDim;
  const kvSize = config.numKvHeads * headDim;
  const linear = (name: string, outFeatures: number, inFeatures: number, hasBias: boolean): LinearTensors => ({
    weight: finder.matrix(`${prefix}.${name}.weight`, outFeatures, inFeatures),
    bias: hasBias ? finder.vector(`${prefix}.${name}.bias`, outFeatures) : null,
  });
  const norm = (name: string, size: number) => finder.vector(`${prefix}.${name}.weight`, size);
  return {
    inputLayernorm: norm('input_layernorm', hiddenSize),
    qProj: linear('self_attn.q_proj', qSize, hiddenSize, qkvBias),
    kProj: linear('self_attn.k_proj', kvSize, hiddenSize, qkvBias),
    vProj: linear('self_attn.v_proj', kvSize, hiddenSize, qkvBias),
    qNorm: qkNorm ? norm('self_attn.q_norm', headDim) : null,
    kNorm: qkNorm ? norm('self_attn.k_norm', headDim) : null,
    oProj: linear('self_attn.o_proj', hiddenSize, qSize, oBias),
    postAttentionLayernorm: norm('post_attention_layernorm', hiddenSize),
    gateProj: linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias),
    upProj: linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias),
    downProj: linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias),
  };
}

/** Looks tensors up by name and records which were used. */
class Finder {
  readonly #stored: ReadonlyMap<string, StoredTensor>;
  readonly #quantization: Quantization | null;
  readonly #folder: string;
  readonly #found = new Set<string>();

  constructor(stored: ReadonlyMap<string, StoredTensor>, quantization: Quantization | null, folder: string) {
    this.#stored = stored;
    this.#quantization = quantization;
    this.#folder = folder;
  }

  has(name: string): boolean {
    return this.#stored.has(name) || findIntegers(name, this.#stored) !== undefined;
  }

  vector(name: string, size: number): Tensor {
    return { ...this.#take(name, [size]), numRows: 1, numCols: size };
  }

  matrix(name: string, numRows: number, numCols: number): Tensor {
    return { ...this.#take(name, [numRows, numCols]), numRows, numCols };
  }

  #take(name: string, shape: readonly number[]): Omit<Tensor, 'numRows' | 'numCols'> {
    const packed = shape.length === 2 ? findIntegers(name, this.#stored) : undefined;
    if (packed !== undefined) return this.#takeIntegers(name, packed, shape as readonly [number, number]);
    const tensor = this.#stored.get(name);
    if (tensor === undefined)
      throw new NdsError('ERR_TENSOR', `Expected a tensor ${describeJson(name)} in ${this.#folder} but received none`);
    const what = `tensor ${describeJson(name)} in ${tensor.path}`;
    if (tensor.shape.length !== shape.length || !shape.every((n, i) => tensor.shape[i] === n)) {
      throw new NdsError(
        'ERR_TENSOR',
        `Expected shape ${describeJson(shape)} for ${what}, as config.json has it, but received ${describeJson(tensor.shape)}`,
      );
    }
    const { dtype, fp8, companions } = storedType(tensor, this.#stored, this.#quantization);
    for (const used of [name, ...companions]) this.#found.add(used);
    return { name, path: tensor.path, byteOffset: tensor.byteOffset, dtype, fp8, integers: null };
  }

  #takeIntegers(name: string, tensor: StoredTensor, shape: readonly [number, number]): Omit<Tensor, 'numRows' | 'numCols'> {
    const { path, byteOffset, integers, names } = readIntegers(name, shape, tensor, this.#stored, this.#quantization);
    for (const used of names) this.#found.add(used);
    return { name, path, byteOffset, dtype: 'bfloat16', fp8: null, integers };
  }

  /** Counts unused tensors by their prefix. @throws NdsError `ERR_TENSOR` naming one that has none of `prefixes`. */
  skipOthers(prefixes: readonly string[]): SkippedTensors[] {
    const counts = new Map<string, number>();
    for (const [name, { path }] of this.#stored) {
      if (this.#found.has(name) || derivedTensor.test(name)) continue;
      if (this.#quantization !== null && kvCacheScale.test(name)) continue;
      const prefix = prefixes.find((start) => name.startsWith(start));
      if (prefix !== undefined) {
        counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
        continue;
      }
      throw new NdsError('ERR_TENSOR', `Expected only tensors that config.json asks for in ${path} but received ${describeJson(name)}`);
    }
    return Array.from(counts, ([prefix, numTensors]) => ({ prefix, numTensors }));
  }
}
