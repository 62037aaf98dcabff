/** From a model folder to a serving engine: reads files, resolves sizes, loads every rank. */
import { resolve } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import type { KvCacheDtype, LoadMessage, ShardReport } from '../protocol/messages.ts';
import type { RankEnv } from '../protocol/rank-env.ts';
import { ChatTemplate } from './chat/chat-template.ts';
import { deviceOfRank } from './cuda-devices.ts';
import { Engine } from './engine/engine.ts';
import { EngineClient } from './engine/engine-client.ts';
import { freeMemoryBytes } from './free-memory.ts';
import { GangExecutor } from './gang/gang-executor.ts';
import { type KvLog, lineKvLog } from './kv/log.ts';
import { checkDraftModel, draftLoad } from './model/draft-model.ts';
import { kvBytesPerBlock, type Model, modelHash, partition, readModel } from './model/index.ts';
import { native } from './native.ts';
import { closeObservers, type Observers, openObservers } from './observe/observers.ts';
import { type LLMOptions, type ResolvedOptions, resolveOptions } from './options.ts';
import { readSamplingDefaults, type SamplingDefaults } from './request/generation-config.ts';
import type { ServingModel } from './request/request-run.ts';
import { Tokenizer } from './text/tokenizer.ts';

/** Max seconds of a load spent measuring the cost of drafts; the rest is learned while serving. */
const maxSweepSeconds = 0.5;

/** A loaded model, ready to serve. */
export interface OpenModel extends ServingModel {
  readonly gang: GangExecutor;
  /** The model's chat templates, possibly none. */
  readonly chatTemplate: ChatTemplate;
  readonly options: ResolvedOptions;
  /** The model's sampling defaults. */
  readonly samplingDefaults: SamplingDefaults;
  readonly shards: readonly ShardReport[];
  /** Close after the gang has unloaded. */
  readonly observers: Observers;
}

/** Files of a load, checked except for weights. */
interface ModelFiles {
  readonly model: Model;
  readonly draftModel: Model | null;
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: ChatTemplate;
  /** Ids from here on, past the tokenizer's, are vocabulary padding and are never sampled. */
  readonly sampleVocabSize: number;
}

/**
 * Loads a model on all ranks.
 * @throws NdsError for a bad folder or option, or a failure of the machine or another rank.
 */
export async function openModel(folder: string, options: LLMOptions, env: RankEnv | null): Promise<OpenModel> {
  const kvLog = openKvLog(options.kvDebug);
  const observers = openObservers(options, env);
  try {
    const files = await readFiles(folder, options.speculativeConfig?.model);
    const { model, draftModel, tokenizer, chatTemplate, sampleVocabSize } = files;
    const resolved = resolveOptions(options, loadFacts(model, draftModel, options.device, env));
    const samplingDefaults = resolved.generationConfig === 'auto' ? readSamplingDefaults(model.path) : {};
    if (draftModel !== null) await checkDraftModel(draftModel, model, tokenizer, sampleVocabSize);
    const message = loadMessage(files, resolved, observers.trace.isOn);
    const gang = await GangExecutor.open(env);
    recordLoad(observers, message, env?.worldSize ?? 1);
    const engine = new Engine(engineOptions(files, resolved, message), gang, { trace: observers.trace, kvLog });
    const client = new EngineClient(engine);
    const shards = await loadRanks(gang, files, message, (cause) => client.fail(cause), observers);
    if (resolved.speculativeConfig?.adaptiveK === true) await engine.sweep(maxSweepSeconds);
    const limits = { modelPath: model.path, vocabSize: model.config.vocabSize, maxModelLen: resolved.maxModelLen };
    const { eosTokenIds } = model.config;
    const serving = { client, tokenizer, limits, sampleVocabSize, eosTokenIds };
    return { ...serving, gang, chatTemplate, options: resolved, samplingDefaults, shards, observers };
  } catch (error) {
    closeObservers(observers);
    throw error;
  }
}

/** @throws NdsError `ERR_USAGE` for a bad `NDS_KV_DEBUG`. */
function openKvLog(kvDebug: boolean | undefined): KvLog | null {
  const value = process.env['NDS_KV_DEBUG'] ?? '';
  if (kvDebug === undefined && !['', '0', '1'].includes(value))
    throw new NdsError('ERR_USAGE', `Expected 0 or 1 for NDS_KV_DEBUG but received "${value}"`);
  return (kvDebug ?? value === '1') ? lineKvLog((line) => process.stderr.write(`${line}\n`)) : null;
}

async function readFiles(folder: string, draftFolder: string | undefined): Promise<ModelFiles> {
  const path = resolve(folder);
  const model = readModel(path);
  const [tokenizer, chatTemplate] = await Promise.all([Tokenizer.load(path), ChatTemplate.load(path)]);
  const { vocabSize } = model.config;
  const sampleVocabSize = Math.min(vocabSize, tokenizer?.vocabSize ?? vocabSize);
  const draftModel = draftFolder === undefined ? null : readModel(resolve(draftFolder));
  return { model, draftModel, tokenizer, chatTemplate, sampleVocabSize };
}

/** The load message, equal for every rank. */
function loadMessage({ model, draftModel, sampleVocabSize }: ModelFiles, resolved: ResolvedOptions, trace: boolean): LoadMessage {
  const { generationConfig, asyncScheduling, enablePrefixCaching, schedulingPolicy, longPrefillTokenThreshold, ...others } = resolved;
  const { speculativeConfig, ...sizes } = others;
  const draft = draftModel === null || speculativeConfig === null ? null : draftLoad(draftModel, speculativeConfig, resolved.maxModelLen);
  const draftRule = speculativeConfig?.rejectionSampleMethod ?? 'coupled';
  return { type: 'load', model: model.path, sampleVocabSize, ...sizes, trace, draftRule, draft };
}

function recordLoad({ recorder }: Observers, message: LoadMessage, worldSize: number): void {
  if (recorder === null) return;
  const { version, cpuInfo } = native();
  const hashes = { modelHash: modelHash(message.model), draftHash: message.draft === null ? null : modelHash(message.draft.model) };
  recorder.load({ type: 'load', version, isa: cpuInfo().isa, worldSize, ...hashes, message });
}

function engineOptions({ model, sampleVocabSize }: ModelFiles, resolved: ResolvedOptions, { draft }: LoadMessage) {
  return {
    ...resolved,
    vocabSize: model.config.vocabSize,
    sampleVocabSize,
    draftLimits: draft && { maxModelLen: draft.maxModelLen, maxNumBatchedTokens: resolved.maxNumBatchedTokens },
    // With 2, a plan is built and sent while the previous one runs.
    maxNumPlansInFlight: resolved.asyncScheduling ? 2 : 1,
  };
}

/** Loads the weights on every rank; prepares the tokenizer while native threads pack them. */
async function loadRanks(
  gang: GangExecutor,
  { model, tokenizer }: ModelFiles,
  message: LoadMessage,
  onFailure: (cause: NdsError) => void,
  observers: Observers,
): Promise<ShardReport[]> {
  const loading = gang.load(model, message, onFailure, observers);
  const preparing = Promise.resolve().then(() => tokenizer?.prepare());
  const [loaded, prepared] = await Promise.allSettled([loading, preparing]);
  if (loaded.status === 'rejected') throw loaded.reason;
  if (prepared.status === 'rejected') {
    await gang.unload();
    throw prepared.reason;
  }
  return loaded.value;
}

function loadFacts(model: Model, draft: Model | null, device: LLMOptions['device'], env: RankEnv | null) {
  const worldSize = env?.worldSize ?? 1;
  const localWorldSize = env?.localWorldSize ?? 1;
  return {
    ...cudaFacts([model, ...(draft === null ? [] : [draft])], device, env?.localRank ?? 0, localWorldSize, worldSize),
    maxPositionEmbeddings: model.config.maxPositionEmbeddings,
    checkpointDtype: model.storedDtype,
    isa: native().cpuInfo().isa,
    freeMemoryBytes: freeMemoryBytes(),
    worldSize,
    localWorldSize,
    kvGroups: (dtype: KvCacheDtype, blockSize: number, draftWorldSize: number, device: 'cpu' | 'cuda') => {
      const group = (name: string, { config }: Model, numShares: number) => {
        const bytesOf = (rank: number) => kvBytesPerBlock(config, partition(config, rank % numShares, numShares), blockSize, dtype, device);
        return { name, bytesPerBlock: Array.from({ length: worldSize }, (_, rank) => bytesOf(rank)) };
      };
      return [group('the model', model, worldSize), ...(draft === null ? [] : [group('the draft model', draft, draftWorldSize)])];
    },
  };
}

/** This rank's device, if any; not probed when the caller asks for the CPU. */
function cudaFacts(models: readonly Model[], device: LLMOptions['device'], localRank: number, localWorldSize: number, worldSize: number) {
  if (device === 'cpu') return { cuda: null, noCudaReason: '' };
  const info = native().cudaInfo(localRank);
  const { device: own, reason } = deviceOfRank(info, localRank);
  if (own === null) return { cuda: null, noCudaReason: reason };
  const { config } = models[0] as Model;
  const cuda = {
    totalBytes: own.totalBytes,
    freeBytes: own.freeBytes ?? 0,
    numRanks: Math.ceil(localWorldSize / info.devices.length),
    weightBytes: models.reduce((sum, { storedBytes }) => sum + Math.ceil(storedBytes / worldSize), 0),
    vocabSize: config.vocabSize,
    activationBytesPerToken: 4 * (4 * config.hiddenSize + 3 * config.intermediateSize + 4 * config.numAttentionHeads * config.headDim),
    isEmulated: info.isEmulated,
  };
  return { cuda, noCudaReason: '' };
}
