/** The model room: from a checkpoint folder to the program of each rank. Reads files, computes nothing, calls nothing native. */
import { join, resolve } from 'node:path';
import { NdsError } from '../../protocol/errors.ts';
import type { KvCacheDtype, ShardReport, WeightQuantization } from '../../protocol/messages.ts';
import type { DType, ProgramSpec, WeightSpec } from '../program-spec.ts';
import { readCheckpoint } from './checkpoint/checkpoint.ts';
import { type ModelConfig, parseConfig } from './config/config.ts';
import { ConfigReader } from './config/config-reader.ts';
import { recordDecoder } from './decoder.ts';
import { fileSize, readJsonFile } from './json.ts';
import { cpuRowBytes } from './memory.ts';
import { type Partition, partition } from './partition.ts';
import { Program, type QuantizedMatrices } from './program.ts';
import { findTensors, type ModelTensors } from './weights.ts';

export type { ProgramSpec } from '../program-spec.ts';
export type { SkippedTensors } from './checkpoint/layout.ts';
export type { ModelConfig } from './config/config.ts';
export { isUnchanged, knownIdentity, learnIdentity, type ModelIdentity, modelHash } from './identity/model-hash.ts';
export { clearRecords } from './identity/record-store.ts';
export { cpuPackedBytes, cpuStepBytes, cpuWeightBytes, cudaWeightBytes, isQuantized } from './memory.ts';
export { type Partition, partition } from './partition.ts';
export type { QuantizedMatrices } from './program.ts';
export { replicatedBytes } from './replicated.ts';

/** A checkpoint whose configuration and tensors have been checked against each other. */
export interface Model {
  /** Absolute path of the folder. */
  readonly path: string;
  readonly config: ModelConfig;
  readonly tensors: ModelTensors;
  /** Dtype of the weights; the embedding's, where they differ, and bfloat16 for one of FP8. */
  readonly storedDtype: DType;
  /** Bytes of all matrices as ranks keep them on the CPU; a tied LM head counts as well as the embedding. */
  readonly weightBytes: number;
  /** What becomes on the CPU of the matrices that are stored as integers or 8-bit floats. */
  readonly integers: QuantizedMatrices;
}

/** Parameters of a program besides the model. */
export interface ProgramOptions {
  readonly rank: number;
  readonly worldSize: number;
  readonly dtype: 'float32' | 'bfloat16';
  readonly kvCacheDtype: KvCacheDtype;
  readonly quantization: WeightQuantization;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxNumLogitRows: number;
  /** Token ids from here on are padding and are never sampled. */
  readonly sampleVocabSize: number;
}

/**
 * Reads config.json, generation_config.json and the headers of the weight files in `path`.
 * @throws NdsError `ERR_MODEL_NOT_FOUND`, `ERR_CONFIG`, `ERR_UNSUPPORTED`, `ERR_CHECKPOINT` or `ERR_TENSOR`, naming the
 * file and the key or tensor.
 */
export function readModel(path: string): Model {
  const folder = resolve(path);
  const configFile = join(folder, 'config.json');
  if (fileSize(configFile, 'ERR_CONFIG') === undefined) {
    throw new NdsError('ERR_MODEL_NOT_FOUND', `Expected a model folder with a config.json at ${folder} but received none`);
  }
  const generationFile = join(folder, 'generation_config.json');
  const hasGeneration = fileSize(generationFile, 'ERR_CONFIG') !== undefined;
  const generation = hasGeneration ? new ConfigReader(generationFile, readJsonFile(generationFile, 'ERR_CONFIG').object) : undefined;
  const config = parseConfig(readJsonFile(configFile, 'ERR_CONFIG').object, configFile, generation);
  const tensors = findTensors(config, readCheckpoint(folder), folder);
  const whole = { rank: 0, worldSize: 1, dtype: 'float32', kvCacheDtype: 'float32', quantization: 'none' } as const;
  const sizes = { blockSize: 32, numBlocks: 1, maxModelLen: 1, maxNumSeqs: 1, maxNumBatchedTokens: 1, maxNumLogitRows: 1 };
  const program = record({ config, tensors }, { ...whole, ...sizes, sampleVocabSize: 1 });
  const weightBytes = program.build().weights.reduce((sum, weight) => sum + matrixBytes(weight), 0);
  return { path: folder, config, tensors, storedDtype: tensors.embedTokens.dtype, weightBytes, integers: program.integers };
}

/** Without padding, but for that of integers and 8-bit floats. */
function matrixBytes(weight: WeightSpec): number {
  if (weight.kind === 'vector') return 0;
  const pieces = weight.kind === 'table' ? [weight.slice] : weight.pieces;
  const isKept = weight.kind === 'linear' && (weight.codes !== null || weight.format === 'fp8');
  const size = (weight.kind === 'table' ? weight.dtype : weight.format) === 'float32' ? 4 : 2;
  return pieces.reduce(
    (sum, { rowBegin, rowEnd, numCols }) => sum + (rowEnd - rowBegin) * (isKept ? cpuRowBytes(weight) : numCols * size),
    0,
  );
}

/**
 * The program of one rank: its slices of the weights, and the operators over them.
 * @throws NdsError `ERR_TOO_MANY_RANKS` for more ranks than heads.
 */
export function buildProgram(model: Model, options: ProgramOptions): ProgramSpec {
  return record(model, options).build();
}

/** How a device keeps matrices: CUDA has no kernels for integers, and expands what the CPU keeps as it is stored. */
export function keptOn(device: 'cpu' | 'cuda', quantization: WeightQuantization): WeightQuantization {
  return device === 'cuda' && quantization === 'none' ? 'expand' : quantization;
}

function record({ config, tensors }: Pick<Model, 'config' | 'tensors'>, options: ProgramOptions): Program {
  const { rank, worldSize, kvCacheDtype, quantization, blockSize, numBlocks, ...limits } = options;
  const part = partition(config, rank, worldSize);
  const numKvHeads = part.kvHeads[1] - part.kvHeads[0];
  const frame = {
    ...limits,
    vocabSize: config.vocabSize,
    hiddenSize: config.hiddenSize,
    kv: { numLayers: config.numHiddenLayers, numBlocks, blockSize, numKvHeads, headDim: config.headDim, dtype: kvCacheDtype },
  };
  const program = new Program(frame, quantization);
  recordDecoder(program, config, tensors, part, options.maxModelLen);
  return program;
}

/** Bytes of one KV block on one rank, all layers. CPU: headDim padded to 16s. int8: an fp32 scale per head vector. */
export function kvBytesPerBlock(
  config: ModelConfig,
  part: Partition,
  blockSize: number,
  dtype: KvCacheDtype,
  device: 'cpu' | 'cuda' = 'cpu',
): number {
  const paddedHeadDim = device === 'cpu' ? Math.ceil(config.headDim / 16) * 16 : config.headDim;
  const numKvHeads = part.kvHeads[1] - part.kvHeads[0];
  const headBytes = { float32: paddedHeadDim * 4, bfloat16: paddedHeadDim * 2, int8: paddedHeadDim + 4 }[dtype];
  return config.numHiddenLayers * numKvHeads * blockSize * 2 * headBytes;
}

/** Heads, columns and rows that a rank holds, without their bytes, which native reports. */
export function shardReport(
  { config }: Model,
  { rank, worldSize }: { readonly rank: number; readonly worldSize: number },
): Omit<ShardReport, 'weightBytes' | 'replicatedBytes' | 'kvBytes' | 'scratchBytes'> {
  const { heads, kvHeads, mlpColumns, vocabRows } = partition(config, rank, worldSize);
  return { rank, heads, kvHeads, mlpColumns, vocabRows };
}
