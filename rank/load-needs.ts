/** What a load takes of every rank's memory: weights, the buffers of a step, KV blocks. */
import type { MemoryReport, WeightQuantization } from '../protocol/messages.ts';
import type { Alternative, RankNeeds } from './kv/load-memory.ts';
import { type CudaFacts, type HostFacts, type KvFacts, type LoadSize, rankNeeds } from './kv-blocks.ts';
import {
  buildProgram,
  cpuStepBytes,
  cpuWeightBytes,
  cudaWeightBytes,
  keptOn,
  kvBytesPerBlock,
  type Model,
  type ProgramSpec,
  partition,
} from './model/index.ts';
import type { LoadFacts, SizedOptions } from './options.ts';

/** The files of a load that decide its size. */
export interface LoadedModels {
  readonly model: Model;
  readonly draftModel: Model | null;
  readonly sampleVocabSize: number;
}

/** A model of the load, and the number of shards that it is cut into. */
interface Part {
  readonly name: string;
  readonly model: Model;
  readonly quantization: WeightQuantization;
  readonly numShares: number;
  readonly maxNumLogitRows: number;
}

/** Facts of a load for `resolveKvBlocks`. @param memory - `[worldSize]` what every rank measured */
export function kvFacts(files: LoadedModels, sized: SizedOptions, facts: LoadFacts, memory: readonly MemoryReport[]): KvFacts {
  return { ...sizeOf(files, sized, facts), memory, alternatives: () => alternatives(files, sized, facts) };
}

function sizeOf(files: LoadedModels, sized: SizedOptions, facts: LoadFacts): LoadSize {
  const parts = partsOf(files, sized, facts);
  const groups = groupsOf(parts, sized, facts);
  if (sized.device === 'cuda') return { groups, host: null, cuda: cudaFacts(parts, files, sized, facts) };
  return { groups, host: hostFacts(parts, files, sized, facts), cuda: null };
}

function partsOf({ model, draftModel }: LoadedModels, sized: SizedOptions, { worldSize }: LoadFacts): Part[] {
  const { speculativeConfig, quantization, maxNumLogitRows, maxNumSeqs } = sized;
  const target = { name: 'the model', model, quantization, numShares: worldSize, maxNumLogitRows };
  if (draftModel === null || speculativeConfig === null) return [target];
  const { draftTensorParallelSize: numShares, quantization: ofDraft } = speculativeConfig;
  // A draft pass samples one row per sequence.
  return [target, { name: 'the draft model', model: draftModel, quantization: ofDraft, numShares, maxNumLogitRows: maxNumSeqs }];
}

function groupsOf(parts: readonly Part[], { blockSize, kvCacheDtype, device }: SizedOptions, { worldSize }: LoadFacts) {
  return parts.map(({ name, model: { config }, numShares }) => ({
    name,
    bytesPerBlock: ranksOf(worldSize).map((rank) =>
      kvBytesPerBlock(config, partition(config, rank % numShares, numShares), blockSize, kvCacheDtype, device),
    ),
  }));
}

function hostFacts(parts: readonly Part[], files: LoadedModels, sized: SizedOptions, { worldSize, isa }: LoadFacts): HostFacts {
  const bytes = ranksOf(worldSize).map((rank) =>
    parts.map((part) => {
      const program = programOf(part, files, sized, rank);
      return { weights: cpuWeightBytes(program).held, step: cpuStepBytes(program, rank % part.numShares, part.numShares, isa) };
    }),
  );
  return {
    weightBytes: bytes.map((models) => models.reduce((sum, { weights }) => sum + weights, 0)),
    stepBytes: bytes.map((models) => models.reduce((sum, { step }) => sum + step, 0)),
  };
}

/** Formats that take less memory than another, the one that changes least first. */
const lighter = { none: ['int8', 'int4'], expand: ['none', 'int8', 'int4'], int8: ['int4'], int4: [] } as const;

/** Ways to take less memory, the one that changes least first. */
function alternatives(files: LoadedModels, sized: SizedOptions, facts: LoadFacts): Alternative[] {
  const { maxNumSeqs, maxNumBatchedTokens, kvCacheDtype, quantization, dtype, device } = sized;
  const found: Alternative[] = [];
  const offer = (what: string, changes: Partial<SizedOptions>) => {
    const other = { ...sized, ...changes };
    found.push({ what, needs: rankNeeds(sizeOf(files, other, facts), other) });
  };
  if (maxNumSeqs < maxNumBatchedTokens) offer(`maxNumBatchedTokens: ${maxNumSeqs}`, { maxNumBatchedTokens: maxNumSeqs });
  if (kvCacheDtype === 'float32' && device === 'cpu') offer("kvCacheDtype: 'bfloat16'", { kvCacheDtype: 'bfloat16' });
  if (kvCacheDtype !== 'int8') offer("kvCacheDtype: 'int8'", { kvCacheDtype: 'int8' });
  if (dtype === 'float32') offer("dtype: 'bfloat16'", { dtype: 'bfloat16', kvCacheDtype: kvCacheDtype === 'int8' ? 'int8' : 'bfloat16' });
  const models = [files.model, ...(files.draftModel === null ? [] : [files.draftModel])];
  if (quantization === 'none' && models.every(({ storedDtype }) => storedDtype === 'float32')) {
    const needs = rankNeeds(sizeOf(files, sized, facts), sized).map((rank) => ({ ...rank, weights: rank.weights / 2 }));
    found.push({ what: 'the same weights stored in bfloat16', needs });
  }
  for (const format of device === 'cuda' ? [] : lighter[quantization]) {
    const { speculativeConfig: draft } = sized;
    offer(`quantization: '${format}'`, { quantization: format, speculativeConfig: draft && { ...draft, quantization: format } });
  }
  return device === 'cuda' ? [...found, ...moreDevices(files, sized, facts)] : found;
}

/** More ranks, each with a device of its own; on one host, more ranks take no less memory. */
function moreDevices(files: LoadedModels, sized: SizedOptions, facts: LoadFacts): Alternative[] {
  const { worldSize } = facts;
  const most = files.model.config.numAttentionHeads;
  const numbers = [2, 4, 8].map((factor) => factor * worldSize).filter((number) => number <= most);
  return numbers.map((number) => {
    const needs = rankNeeds(sizeOf(files, sized, { ...facts, worldSize: number }), sized);
    const bytes = (key: 'weights' | 'step' | 'kv') => Math.max(...needs.map((rank) => rank[key]));
    const largest = { weights: bytes('weights'), step: bytes('step'), kv: bytes('kv') };
    return { what: `${number} ranks with a device each`, needs: Array<RankNeeds>(worldSize).fill(largest) };
  });
}

function cudaFacts(parts: readonly Part[], files: LoadedModels, sized: SizedOptions, { worldSize, cuda }: LoadFacts): CudaFacts {
  const activationBytes = ({ config: { hiddenSize, intermediateSize, numAttentionHeads, headDim } }: Model) =>
    4 * (4 * hiddenSize + 3 * intermediateSize + 4 * numAttentionHeads * headDim);
  const sumOf = (amount: (model: Model) => number) => parts.reduce((sum, { model }) => sum + amount(model), 0);
  return {
    weightBytes: ranksOf(worldSize).map((rank) =>
      parts.reduce((sum, part) => sum + cudaWeightBytes(programOf(part, files, sized, rank)), 0),
    ),
    logitsPerRow: sumOf(({ config }) => config.vocabSize),
    activationBytesPerToken: sumOf(activationBytes),
    isEmulated: cuda?.isEmulated === true,
  };
}

/** The program of a part on a rank, with one KV block. */
function programOf(part: Part, { sampleVocabSize }: LoadedModels, sized: SizedOptions, rank: number): ProgramSpec {
  const { model, quantization, numShares, maxNumLogitRows } = part;
  const share = { rank: rank % numShares, worldSize: numShares, quantization: keptOn(sized.device, quantization) };
  const maxModelLen = Math.min(sized.maxModelLen, model.config.contextLengths.max);
  return buildProgram(model, { ...sized, ...share, maxModelLen, maxNumLogitRows, numBlocks: 1, sampleVocabSize });
}

const ranksOf = (worldSize: number) => Array.from({ length: worldSize }, (_, rank) => rank);
