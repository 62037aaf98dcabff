/** Names that other tools give an option, and what it is called here, for the error about an unknown one. */

/** Where a name of ours belongs. */
export type Home = 'launcher' | 'bench' | 'sampling' | 'load';

/** Ours by the names of vLLM, SGLang, llama.cpp, Transformers, Accelerate, DeepSpeed and OpenAI. */
const synonyms: Readonly<Record<Home, Readonly<Record<string, readonly string[]>>>> = {
  launcher: {
    nprocPerNode: ['tensorParallelSize', 'tp', 'tpSize', 'numGpus', 'gpus', 'numProcesses', 'np', 'worldSize'],
    nnodes: ['numNodes', 'numMachines'],
    nodeRank: ['machineRank'],
    masterAddr: ['mainProcessIp', 'distInitAddr'],
    masterPort: ['mainProcessPort'],
  },
  bench: { promptLen: ['inputLen', 'nPrompt'], batchSizes: ['batchSize'] },
  sampling: {
    temperature: ['temp'],
    topK: [],
    topP: ['nucleus'],
    minP: [],
    presencePenalty: [],
    frequencyPenalty: [],
    repetitionPenalty: ['repeatPenalty'],
    logitBias: [],
    allowedTokenIds: [],
    badWords: ['badWordsIds'],
    minTokens: ['minNewTokens'],
    maxTokens: ['maxNewTokens', 'maxLength', 'maxCompletionTokens', 'maxOutputTokens', 'nPredict', 'numPredict', 'outputLen'],
    stop: ['stopSequences', 'stopSequence', 'stopStrings', 'reversePrompt'],
    stopTokenIds: ['eosTokenId'],
    includeStopStrInOutput: [],
    ignoreEos: [],
    seed: [],
    n: ['numReturnSequences', 'numSamples'],
    logprobs: ['topLogprobs', 'nProbs'],
    promptLogprobs: [],
    skipSpecialTokens: [],
  },
  load: {
    dtype: ['torchDtype', 'dataType', 'precision'],
    kvCacheDtype: ['cacheTypeK', 'cacheTypeV', 'kvCacheType'],
    quantization: ['quantizationConfig', 'loadIn4bit', 'loadIn8bit', 'bits', 'quant', 'quantize', 'weightDtype', 'weightFormat'],
    device: ['deviceMap', 'nGpuLayers', 'gpuLayers', 'ngl'],
    deterministic: [],
    gpuMemoryUtilization: ['memFractionStatic'],
    blockSize: ['pageSize'],
    kvCacheMemoryBytes: ['numGpuBlocksOverride'],
    kvCacheMemoryShare: [],
    maxModelLen: ['ctxSize', 'nCtx', 'contextLength', 'maxSeqLen', 'maxContextLen'],
    maxNumSeqs: ['maxBatchSize', 'maxRunningRequests'],
    maxNumBatchedTokens: ['chunkedPrefillSize'],
    enablePrefixCaching: ['prefixCaching'],
    schedulingPolicy: ['schedulePolicy'],
    longPrefillTokenThreshold: [],
    generationConfig: [],
    numThreads: ['threads', 'nThreads'],
    asyncScheduling: [],
    speculativeConfig: ['speculativeModel', 'draftModel', 'modelDraft', 'md', 'assistantModel', 'numSpeculativeTokens', 'draftMax'],
    trace: [],
    record: [],
  },
};

const noServer = 'there is no HTTP server; a script with LLM.load can be one';
const noCode = 'no code of a model is ever run';
const colour = 'colour follows the terminal, NO_COLOR and FORCE_COLOR';

/** What has no name here, and why. */
const answers: Readonly<Record<string, string>> = {
  model: 'a model is an operand, as in ndsrun generate MODEL PROMPT, or the first argument of LLM.load',
  pipelineParallelSize: 'layers are not split over ranks; ndsrun --nproc-per-node splits each of them',
  pp: 'layers are not split over ranks; ndsrun --nproc-per-node splits each of them',
  dataParallelSize: 'ranks are tensor parallel (ndsrun --nproc-per-node); start several jobs for several copies',
  dp: 'ranks are tensor parallel (ndsrun --nproc-per-node); start several jobs for several copies',
  doSample: 'it samples unless the temperature is 0',
  numBeams: 'there is no beam search',
  trustRemoteCode: noCode,
  quantization: 'config.json says how a checkpoint is quantized, and nothing else needs to',
  loadFormat: 'a checkpoint is safetensors',
  tokenizer: "the tokenizer is that of the model's folder",
  enableChunkedPrefill: 'long prompts are always cut (maxNumBatchedTokens, longPrefillTokenThreshold)',
  host: noServer,
  port: noServer,
  apiKey: noServer,
  servedModelName: noServer,
  version: 'ndsrun --version, without a command, prints it',
  v: 'ndsrun --version, without a command, prints it',
  color: colour,
  noColor: colour,
};

const ours = new Map(
  Object.entries(synonyms).flatMap(([home, names]) =>
    Object.entries(names).flatMap(([name, theirs]) => [name, ...theirs].map((one) => [one, { name, home: home as Home }] as const)),
  ),
);

/** `max_new_tokens`, `--max-new-tokens` → maxNewTokens. */
export function camelCase(name: string): string {
  return name.replace(/^--?/, '').replace(/[-_]+([a-zA-Z\d])/g, (_, letter: string) => letter.toUpperCase());
}

/** maxNewTokens → `max-new-tokens`. */
export function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Names of ours that belong to `home`. */
export function namesOf(home: Home): readonly string[] {
  return Object.keys(synonyms[home]);
}

/**
 * What a name that is no option of the place it was given at means; null for a name that is not known.
 * @param name - in camel, snake or kebab case
 * @param known - the options of that place, in camel case
 * @param print - how that place writes an option, such as `--max-tokens`
 */
export function foreignAnswer(name: string, known: readonly string[], print: (ours: string) => string): string | null {
  const key = camelCase(name);
  if (Object.hasOwn(answers, key)) return answers[key] ?? null;
  const found = ours.get(key);
  if (found === undefined) return null;
  return `it is ${known.includes(found.name) ? print(found.name) : elsewhere(found.name, found.home)}`;
}

function elsewhere(name: string, home: Home): string {
  switch (home) {
    case 'launcher':
      return `ndsrun --${kebabCase(name)}`;
    case 'bench':
      return `--${kebabCase(name)} of ndsrun bench`;
    case 'sampling':
      return `the sampling parameter ${name}, and --${kebabCase(name)} of ndsrun generate`;
    case 'load':
      return `the load option ${name} of LLM.load`;
  }
}
