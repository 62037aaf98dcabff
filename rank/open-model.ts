/** From a model folder to a serving engine: reads files, resolves sizes, loads every rank. */
import { resolve } from 'node:path';
import { deferred } from '../protocol/deferred.ts';
import { NdsError } from '../protocol/errors.ts';
import type { LoadMessage, ModelSource, ShardReport } from '../protocol/messages.ts';
import type { RankEnv } from '../protocol/rank-env.ts';
import { ChatTemplate } from './chat/chat-template.ts';
import { deviceOfRank } from './cuda-devices.ts';
import { Engine } from './engine/engine.ts';
import { EngineClient } from './engine/engine-client.ts';
import { modelSources } from './gang/find-model.ts';
import { GangExecutor, type GangListener } from './gang/gang-executor.ts';
import { resolveModel } from './hub/resolve-model.ts';
import { type KvLog, lineKvLog } from './kv/log.ts';
import { resolveKvBlocks } from './kv-blocks.ts';
import { kvFacts } from './load-needs.ts';
import { guarded, WeightsProgress } from './load-progress.ts';
import { checkDraftModel, draftLoad } from './model/draft-model.ts';
import { type Model, modelHash, type QuantizedMatrices, readModel, type SkippedTensors } from './model/index.ts';
import { native } from './native.ts';
import { closeObservers, type Observers, openObservers } from './observe/observers.ts';
import type { LoadRecord } from './observe/plan-log.ts';
import type { OpenShare } from './open-share.ts';
import { type LLMOptions, type LoadFacts, type ResolvedOptions, resolveOptions } from './options.ts';
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
  readonly skipped: readonly SkippedTensors[];
  /** `null` where none are kept: on CUDA, and with another `quantization`. */
  readonly integers: QuantizedMatrices | null;
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
export async function openModel(name: string, options: LLMOptions, env: RankEnv | null, share: OpenShare): Promise<OpenModel> {
  const kvLog = openKvLog(options.kvDebug);
  const observers = openObservers(options, env);
  try {
    const files = await readFiles(name, options);
    const { model, draftModel, tokenizer, chatTemplate, sampleVocabSize } = files;
    const facts = loadFacts(model, options.device, env);
    const sized = resolveOptions(options, facts);
    share.use(sized.device);
    const samplingDefaults = sized.generationConfig === 'auto' ? readSamplingDefaults(model.path) : {};
    if (draftModel !== null) await checkDraftModel(draftModel, model, tokenizer, sampleVocabSize);
    const gang = await GangExecutor.open(env);
    const kv = kvFacts(files, sized, facts, await gang.probe(sized.device));
    const { weightBytes } = kv.cuda ?? kv.host;
    const totalBytes = weightBytes.reduce((sum, bytes) => sum + bytes, 0);
    const progress = new WeightsProgress(options.onProgress ?? (() => {}), totalBytes);
    const resolved = { ...sized, numBlocks: resolveKvBlocks(options, sized, kv) };
    const message = loadMessage(files, resolved, observers.trace.isOn);
    const record = observers.recorder === null ? null : await loadRecord(message, env?.worldSize ?? 1);
    if (record !== null) observers.recorder?.load(record);
    const engine = new Engine(engineOptions(files, resolved, message), gang, { trace: observers.trace, kvLog });
    const client = new EngineClient(engine);
    const listener: GangListener = {
      onFailed: (cause) => engine.fail(cause),
      onLost: () => engine.lose(),
      onResumed: () => {
        if (record !== null) observers.recorder?.load(record);
        engine.resume();
      },
    };
    const sources = await modelSources(env, namedModels(name, options, files));
    const shards = await loadRanks({ gang, files, message, sources, listener, observers, progress });
    if (resolved.speculativeConfig?.adaptiveK === true) await sweepOrUnload(engine, gang);
    const { eosTokenIds, vocabSize, hiddenSize, imageTokens } = model.config;
    const limits = { modelPath: model.path, vocabSize, maxModelLen: resolved.maxModelLen, imageTokens };
    const serving = { client, tokenizer, limits, hiddenSize, sampleVocabSize, eosTokenIds };
    const { skipped } = model.tensors;
    const integers = resolved.device === 'cpu' && resolved.quantization === 'none' ? model.integers : null;
    return { ...serving, gang, chatTemplate, options: resolved, samplingDefaults, shards, skipped, integers, observers };
  } catch (error) {
    closeObservers(observers);
    throw error;
  }
}

/** Measures steps. Ranks do not stay loaded where that fails. */
async function sweepOrUnload(engine: Engine, gang: GangExecutor): Promise<void> {
  try {
    await engine.sweep(maxSweepSeconds);
  } catch (error) {
    await gang.unload().catch(() => {});
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

async function readFiles(name: string, { speculativeConfig, onProgress: report }: LLMOptions): Promise<ModelFiles> {
  const onProgress = report && guarded(report);
  const path = resolve(await resolveModel(name, onProgress));
  const draftName = speculativeConfig?.model;
  const draftFolder = draftName === undefined ? undefined : await resolveModel(draftName, onProgress);
  const model = readModel(path);
  const tokenizer = await Tokenizer.load(path);
  const chatTemplate = await ChatTemplate.load(path, tokenizer?.specialTokens);
  const { vocabSize } = model.config;
  const sampleVocabSize = Math.min(vocabSize, tokenizer?.vocabSize ?? vocabSize);
  const draftModel = draftFolder === undefined ? null : readModel(resolve(draftFolder));
  return { model, draftModel, tokenizer, chatTemplate, sampleVocabSize };
}

/** Folders of the models, and what the user called them. */
function namedModels(name: string, { speculativeConfig }: LLMOptions, { model, draftModel }: ModelFiles): { name: string; path: string }[] {
  const draft = draftModel === null ? [] : [{ name: speculativeConfig?.model as string, path: draftModel.path }];
  return [{ name, path: model.path }, ...draft];
}

/** The load message, equal for every rank. */
function loadMessage({ model, draftModel, sampleVocabSize }: ModelFiles, resolved: ResolvedOptions, trace: boolean): LoadMessage {
  const { generationConfig, asyncScheduling, enablePrefixCaching, schedulingPolicy, longPrefillTokenThreshold, ...others } = resolved;
  const { speculativeConfig, ...sizes } = others;
  const draft = draftModel === null || speculativeConfig === null ? null : draftLoad(draftModel, speculativeConfig, resolved.maxModelLen);
  const draftRule = speculativeConfig?.rejectionSampleMethod ?? 'coupled';
  return { type: 'load', model: model.path, sampleVocabSize, ...sizes, trace, draftRule, draft };
}

async function loadRecord(message: LoadMessage, worldSize: number): Promise<LoadRecord> {
  const { version, cpuInfo } = native();
  const draftHash = message.draft === null ? null : await modelHash(message.draft.model);
  return { type: 'load', version, isa: cpuInfo().isa, worldSize, modelHash: await modelHash(message.model), draftHash, message };
}

function engineOptions({ model, sampleVocabSize }: ModelFiles, resolved: ResolvedOptions, { draft }: LoadMessage) {
  return {
    ...resolved,
    vocabSize: model.config.vocabSize,
    hiddenSize: model.config.hiddenSize,
    sampleVocabSize,
    draftLimits: draft && { maxModelLen: draft.maxModelLen, maxNumBatchedTokens: resolved.maxNumBatchedTokens },
    // With 2, a plan is built and sent while the previous one runs.
    maxNumPlansInFlight: resolved.asyncScheduling ? 2 : 1,
  };
}

interface RanksLoad {
  readonly gang: GangExecutor;
  readonly files: ModelFiles;
  readonly message: LoadMessage;
  readonly sources: readonly ModelSource[];
  readonly listener: GangListener;
  readonly observers: Observers;
  readonly progress: WeightsProgress;
}

/** Loads the weights on every rank; prepares the tokenizer while native threads pack them. */
async function loadRanks({ gang, files, message, sources, listener, observers, progress }: RanksLoad): Promise<readonly ShardReport[]> {
  const { model, tokenizer } = files;
  progress.update(0);
  const started = deferred<void>();
  const loading = gang.load({ model, message, sources, observers, listener }, (loadedBytes) => {
    started.resolve();
    progress.update(loadedBytes);
  });
  // Not earlier: what holds this thread for a good part of a second would hold up the start of the native threads.
  const preparing = Promise.race([started.promise, loading]).then(() => tokenizer?.prepare());
  const [loaded, prepared] = await Promise.allSettled([loading, preparing]);
  if (loaded.status === 'rejected') throw loaded.reason;
  try {
    if (prepared.status === 'rejected') throw prepared.reason;
    progress.end();
  } catch (error) {
    await gang.unload();
    throw error;
  }
  return loaded.value;
}

function loadFacts(model: Model, device: LLMOptions['device'], env: RankEnv | null): LoadFacts {
  return {
    ...findCuda(device, env?.localRank ?? 0),
    worldSize: env?.worldSize ?? 1,
    contextLengths: model.config.contextLengths,
    checkpointDtype: model.storedDtype,
    isa: native().cpuInfo().isa,
  };
}

/** This rank's device, if any; not looked for when the caller asks for the CPU. */
function findCuda(device: LLMOptions['device'], localRank: number): Pick<LoadFacts, 'cuda' | 'noCudaReason'> {
  if (device === 'cpu') return { cuda: null, noCudaReason: '' };
  const info = native().cudaInfo();
  const { device: own, reason } = deviceOfRank(info, localRank);
  return own === null ? { cuda: null, noCudaReason: reason } : { cuda: { isEmulated: info.isEmulated }, noCudaReason: '' };
}
