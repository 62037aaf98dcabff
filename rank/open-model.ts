/** From a model folder to an engine that can serve it: reads, decides sizes, loads every rank. */
import { resolve } from 'node:path';
import type { NdsError } from '../protocol/errors.ts';
import type { KvCacheDtype, LoadMessage, ShardReport } from '../protocol/messages.ts';
import type { RankEnv } from '../protocol/rank-env.ts';
import { ChatTemplate } from './chat/chat-template.ts';
import { deviceOfRank } from './cuda-devices.ts';
import { Engine } from './engine/engine.ts';
import { EngineClient } from './engine/engine-client.ts';
import { freeMemoryBytes } from './free-memory.ts';
import { Gang } from './gang/gang.ts';
import { checkDraftModel, draftLoad } from './model/draft-model.ts';
import { kvBytesPerBlock, type Model, modelHash, partition, readModel } from './model/index.ts';
import { native } from './native.ts';
import { closeWatch, openWatch, type Watch } from './observe/observers.ts';
import { type LLMOptions, type ResolvedOptions, resolveOptions } from './options.ts';
import { readSamplingDefaults, type SamplingDefaults } from './request/generation-config.ts';
import type { PromptLimits } from './request/prompt.ts';
import { Tokenizer } from './text/tokenizer.ts';

/** How long a load may take longer to measure what drafts cost; what is not known then is learned on the way. */
const maxSweepSeconds = 0.5;

/** A loaded model, ready to serve. */
export interface OpenModel {
  readonly client: EngineClient;
  readonly gang: Gang;
  /** Undefined for a model without tokenizer.json, which takes and gives token ids only. */
  readonly tokenizer: Tokenizer | undefined;
  /** The model's chat templates; it may have none. */
  readonly chatTemplate: ChatTemplate;
  readonly limits: PromptLimits;
  /** Token ids below can be drawn; the rest of the vocabulary is padding. */
  readonly sampleVocabSize: number;
  readonly options: ResolvedOptions;
  readonly eosTokenIds: readonly number[];
  /** Sampling parameters of the model's own, for what a call leaves out. */
  readonly samplingDefaults: SamplingDefaults;
  readonly shards: readonly ShardReport[];
  /** To be closed after the gang has unloaded. */
  readonly watch: Watch;
}

/**
 * Loads a model on all ranks.
 * @throws NdsError whatever is wrong with the folder, the options, the machine or another rank.
 */
export async function openModel(folder: string, options: LLMOptions, env: RankEnv | null): Promise<OpenModel> {
  const watch = openWatch(options, env);
  try {
    return await openWatched(folder, options, env, watch);
  } catch (error) {
    closeWatch(watch);
    throw error;
  }
}

async function openWatched(folder: string, options: LLMOptions, env: RankEnv | null, watch: Watch): Promise<OpenModel> {
  const path = resolve(folder);
  const model = readModel(path);
  const [tokenizer, chatTemplate] = await Promise.all([Tokenizer.load(path), ChatTemplate.load(path)]);
  const { vocabSize } = model.config;
  const worldSize = env?.worldSize ?? 1;
  const { model: draftPath } = options.speculativeConfig ?? {};
  const draftModel = draftPath === undefined ? null : readModel(resolve(draftPath));
  const resolved = resolveOptions(options, loadFacts(model, draftModel, options.device, env));
  const {
    generationConfig,
    asyncScheduling,
    enablePrefixCaching,
    schedulingPolicy,
    longPrefillTokenThreshold,
    speculativeConfig,
    ...sizes
  } = resolved;
  const samplingDefaults = generationConfig === 'auto' ? readSamplingDefaults(path) : {};
  // Ids past the tokenizer's are padding of the vocabulary: they mean nothing and are never produced.
  const sampleVocabSize = Math.min(vocabSize, tokenizer?.vocabSize ?? vocabSize);
  if (draftModel !== null) await checkDraftModel(draftModel, model, tokenizer, sampleVocabSize);
  const draft = draftModel === null || speculativeConfig === null ? null : draftLoad(draftModel, speculativeConfig, resolved.maxModelLen);
  const draftRule = speculativeConfig?.rejectionSampleMethod ?? 'coupled';
  const message: LoadMessage = { type: 'load', model: path, sampleVocabSize, ...sizes, trace: watch.trace.isOn, draftRule, draft };
  const gang = await Gang.open(env);
  const { version, cpuInfo } = native();
  if (watch.recorder !== null) {
    const hashes = { modelHash: modelHash(path), draftHash: draft === null ? null : modelHash(draft.model) };
    watch.recorder.load({ type: 'load', version, isa: cpuInfo().isa, worldSize, ...hashes, message });
  }
  // Two, so that a plan is built and sent while the one before it runs.
  const maxNumPlansInFlight = asyncScheduling ? 2 : 1;
  const policy = { enablePrefixCaching, schedulingPolicy, longPrefillTokenThreshold, maxNumPlansInFlight };
  const draftLimits = draft && { maxModelLen: draft.maxModelLen, maxNumBatchedTokens: sizes.maxNumBatchedTokens };
  const engineOptions = { ...sizes, ...policy, vocabSize, sampleVocabSize, speculativeConfig, draftLimits };
  let engine: Engine | undefined;
  const client = new EngineClient((listener) => {
    engine = new Engine(engineOptions, gang, listener, watch);
    return engine;
  });
  const loading = gang.load(model, message, (cause: NdsError) => client.fail(cause), watch);
  // Native threads pack the weights meanwhile.
  const prepared = Promise.resolve().then(() => tokenizer?.prepare());
  const [loaded, encoder] = await Promise.allSettled([loading, prepared]);
  if (loaded.status === 'rejected') throw loaded.reason;
  if (encoder.status === 'rejected') {
    await gang.unload();
    throw encoder.reason;
  }
  const shards = loaded.value;
  if (speculativeConfig?.adaptiveK === true) await engine?.sweep(maxSweepSeconds);
  const limits = { modelPath: path, vocabSize, maxModelLen: resolved.maxModelLen };
  return {
    client,
    gang,
    tokenizer,
    chatTemplate,
    limits,
    sampleVocabSize,
    options: resolved,
    eosTokenIds: model.config.eosTokenIds,
    samplingDefaults,
    shards,
    watch,
  };
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

/** The device of this rank, if there is one; not even looked for where the caller wants the CPU. */
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
