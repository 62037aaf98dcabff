/** Records of prefill and decode. */

import { ownNumThreads } from '../../rank/gang/threads.ts';
import type { LLM } from '../../rank/index.ts';
import { kvBytesPerBlock, type Model, type ModelConfig, partition } from '../../rank/model/index.ts';
import { bytesPerToken, type Case, flopsPerToken, nameOf, numLayerParameters } from './cases.ts';
import type { Measured, Probe } from './measure.ts';
import type { ModelBenchRequest } from './model-request.ts';
import { type BenchModel, type BenchRecord, type BenchRun, benchSchema, type LimitShare, limitShare, spreadOf } from './record.ts';

/** A loaded model. */
export function describeModel(
  llm: LLM,
  { config, storedDtype }: Model,
  { model, isShape }: { readonly model: string; readonly isShape: boolean },
  loadSeconds: number,
): BenchModel {
  const { dtype, kvCacheDtype, quantization, device } = llm.options;
  const { shards } = llm;
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  return {
    name: model,
    isSynthetic: isShape,
    numParameters: numLayerParameters(config) + config.vocabSize * config.hiddenSize * (config.tieWordEmbeddings ? 1 : 2),
    weightBytes: sum(shards.map(({ weightBytes }) => weightBytes)),
    kvBytesPerToken: sum(
      shards.map(({ rank }) => kvBytesPerBlock(config, partition(config, rank, shards.length), 1, kvCacheDtype, device)),
    ),
    storedDtype: [...keptFormats(llm), storedDtype].join(', '),
    dtype,
    kvCacheDtype,
    quantization,
    loadSeconds,
  };
}

/** Formats of the matrices whose integers stay as the checkpoint has them. */
function keptFormats({ quantizedMatrices }: LLM): string[] {
  return Object.entries(quantizedMatrices?.numKept ?? {}).flatMap(([format, count]) => (count > 0 ? [format] : []));
}

interface Parts {
  readonly llm: LLM;
  readonly config: ModelConfig;
  readonly run: BenchRun;
  readonly described: BenchModel;
  readonly one: Case;
  /** `[numRounds]` */
  readonly measured: readonly Measured[];
  readonly numWarmups: number;
  readonly request: ModelBenchRequest;
}

/** One case as a record. Shares are left out with drafts, of which a pass over the weights yields several tokens, and on CUDA. */
export function recordOf(parts: Parts): BenchRecord {
  const { llm, run, described, one, measured, numWarmups, request } = parts;
  const speeds = measured.map(({ tokensPerSecond }) => tokensPerSecond);
  const probes = measured.flatMap(({ probe }) => probe ?? []);
  const hasLimits = probes.length === measured.length && llm.options.speculativeConfig === null;
  const { axes, command, rounds, load } = request;
  const isByDepth = axes.depths.length > 1;
  const byBatch = one.phase === 'decode' ? { name: 'batch size', value: one.batchSize } : null;
  const x = isByDepth ? { name: 'depth', value: one.depth } : byBatch;
  const batch = isByDepth && one.batchSize > 1 ? `, batch ${one.batchSize}` : '';
  return {
    schema: benchSchema,
    command,
    name: nameOf(one),
    series: `${one.phase === 'prefill' ? 'pp' : 'tg'}${one.numTokens}${batch}`,
    x,
    unit: 'tokens/s',
    value: spreadOf(speeds),
    numWarmups,
    numRounds: rounds,
    limits: hasLimits ? limitsOf(parts, speeds, probes) : [],
    numRanks: llm.shards.length,
    numThreads: llm.options.device === 'cuda' ? null : ownNumThreads(load.numThreads),
    run,
    model: described,
    details: {
      phase: one.phase,
      numTokens: one.numTokens,
      depth: one.depth,
      batchSize: one.batchSize,
      minorFaultsPerStep: Math.min(...measured.map(({ minorFaultsPerStep }) => minorFaultsPerStep)),
      contextSwitchesPerStep: Math.min(...measured.map(({ contextSwitchesPerStep }) => contextSwitchesPerStep)),
      ioCallsPerStep: leastOf(measured.map(({ ioCallsPerStep }) => ioCallsPerStep)),
    },
  };
}

/** Null where one is not known. */
function leastOf(values: readonly (number | null)[]): number | null {
  const known = values.flatMap((value) => value ?? []);
  return known.length === values.length ? Math.min(...known) : null;
}

/** Of arithmetic; of bandwidth too for decode, which reads its weights from memory in each step. */
function limitsOf({ llm, config, described: model, one }: Parts, speeds: readonly number[], probes: readonly Probe[]): LimitShare[] {
  const ofProbes = (peak: keyof Probe) => probes.map((probe) => probe[peak]);
  const isOfBytes = ['int8', 'int4'].includes(model.quantization) || keptFormats(llm).some((format) => format.startsWith('int'));
  const arithmetic = isOfBytes
    ? limitShare('op/s', flopsPerToken(one, config), speeds, ofProbes('int8OpsPerSecond'))
    : limitShare('flop/s', flopsPerToken(one, config), speeds, ofProbes('flopsPerSecond'));
  if (one.phase === 'prefill') return [arithmetic];
  // A step reads one row of the embedding for each token.
  const embeddingBytes = config.vocabSize * config.hiddenSize * (model.storedDtype === 'float32' ? 4 : 2);
  const bytes = bytesPerToken(one, model.weightBytes - embeddingBytes, model.kvBytesPerToken);
  return [limitShare('B/s', bytes, speeds, ofProbes('readBytesPerSecond')), arithmetic];
}
