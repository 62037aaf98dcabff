/** A rank of `ndsrun bench`: `bench-rank REQUEST`. */
import { NdsError } from '../../protocol/errors.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { resolveModel } from '../../rank/hub/resolve-model.ts';
import type { Prompt } from '../../rank/index.ts';
import { type ModelConfig, readModel } from '../../rank/model/index.ts';
import { native } from '../../rank/native.ts';
import { openBar } from '../progress-bar.ts';
import type { BenchRequest } from './bench.ts';
import { describeRun, median, runLines } from './bench-machine.ts';
import { describeSpeculation } from './generate-output.ts';
import { loadWithBar } from './rank-progress.ts';

/** Measured limits of the processors. */
interface Limits {
  readonly readBytesPerSecond: number;
  readonly flopsPerSecond: number;
}

interface Measurement {
  readonly name: string;
  readonly tokensPerSecond: number;
  /**
   * Share of the binding limit: memory bandwidth for plain decode at batch 1, arithmetic for prefill; null elsewhere.
   */
  readonly shareOfLimit: number | null;
}

/** Prompt length of the decode measurements, in tokens. */
const decodePromptLen = 8;

const request = JSON.parse(process.argv[2] ?? '') as BenchRequest;
const { cpuInfo, testing } = native();
const cpu = cpuInfo();
const loadStart = performance.now();
await using llm = await loadWithBar(request.model, request.load, request.quiet);
const loadSeconds = (performance.now() - loadStart) / 1000;
const { config, storedDtype } = readModel(await resolveModel(request.model));

// A decoding sequence has decodePromptLen prompt tokens, and prefill has at least one.
const maxTokensLimit = llm.options.maxModelLen - decodePromptLen;
if (request.maxTokens > maxTokensLimit) {
  throw new NdsError('ERR_USAGE', `Expected at most ${maxTokensLimit} for --max-tokens with this model but received ${request.maxTokens}`);
}
const maxPromptLen = llm.options.maxModelLen - 1;
const promptLen = Math.min(request.promptLen, maxPromptLen);
const rounds: Measurement[][] = [];
const limits: Limits[] = [];
const bar = openBar('measuring', 'items', request.quiet);
let numMeasured = 0;
// The first round warms caches and pages.
for (let round = 0; round <= request.rounds; round++) {
  const limit = probe();
  const measured = [await counted(measurePrefill(limit, round))];
  for (const batchSize of request.batchSizes) measured.push(await counted(measureDecode(limit, batchSize, round)));
  if (round === 0) continue;
  rounds.push(measured);
  if (limit !== null) limits.push(limit);
}
bar.end();
print();

async function counted(measuring: Promise<Measurement>): Promise<Measurement> {
  const measurement = await measuring;
  bar.update(++numMeasured, (request.rounds + 1) * (1 + request.batchSizes.length));
  return measurement;
}

/** Reads 512 MB of memory and does arithmetic, on all cores; null on CUDA, where the cores compute nothing. */
function probe(): Limits | null {
  if (llm.options.device === 'cuda') return null;
  const run = testing['probe'] as unknown as (options: { numThreads: number; bytes: number }) => Limits;
  return run({ numThreads: cpu.allowedCores, bytes: 512e6 });
}

/** Distinct in every round, so that no cached prefix is reused. */
function prompt(length: number, salt: number): Prompt {
  return { promptTokenIds: Array.from({ length }, (_, i) => (i * 7919 + salt * 104729 + 11) % config.vocabSize) };
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function measurePrefill(limit: Limits | null, round: number): Promise<Measurement> {
  const seconds = await secondsOf(() => llm.generate(prompt(promptLen, round), { temperature: 0, maxTokens: 1, ignoreEos: true }));
  const flops = 2 * numLayerParameters(config) * promptLen;
  const shareOfLimit = limit === null ? null : flops / seconds / limit.flopsPerSecond;
  return { name: `prefill ${promptLen}`, tokensPerSecond: promptLen / seconds, shareOfLimit };
}

/** Steps after the first, which excludes prefill. */
async function measureDecode(limit: Limits | null, batchSize: number, round: number): Promise<Measurement> {
  const params = { temperature: 0, ignoreEos: true };
  const prompts = Array.from({ length: batchSize }, (_, i) => prompt(decodePromptLen, round * 1000 + i));
  const first = await secondsOf(() => llm.generate(prompts, { ...params, maxTokens: 1 }));
  const all = await secondsOf(() => llm.generate(prompts, { ...params, maxTokens: request.maxTokens }));
  const stepsPerSecond = (request.maxTokens - 1) / (all - first);
  const embeddingBytes = config.vocabSize * config.hiddenSize * (storedDtype === 'float32' ? 4 : 2);
  const bytes = llm.shards.reduce((sum, { weightBytes }) => sum + weightBytes, -embeddingBytes);
  // With drafts, a pass over the weights yields several tokens.
  const isBound = batchSize === 1 && llm.options.speculativeConfig === null;
  const shareOfLimit = isBound && limit !== null ? (stepsPerSecond * bytes) / limit.readBytesPerSecond : null;
  return { name: `decode, batch ${batchSize}`, tokensPerSecond: stepsPerSecond * batchSize, shareOfLimit };
}

/** Number of elements of the matrices of all layers: each is read once per step and multiplied once per token. */
function numLayerParameters({
  hiddenSize,
  intermediateSize,
  numHiddenLayers,
  numAttentionHeads,
  numKvHeads,
  headDim,
}: ModelConfig): number {
  const attention = hiddenSize * headDim * (2 * numAttentionHeads + 2 * numKvHeads);
  return numHiddenLayers * (attention + 3 * hiddenSize * intermediateSize);
}

function medianLimits(): Limits | null {
  if (limits.length === 0) return null;
  return {
    readBytesPerSecond: median(limits.map((limit) => limit.readBytesPerSecond)),
    flopsPerSecond: median(limits.map((limit) => limit.flopsPerSecond)),
  };
}

function print(): void {
  const measurements = (rounds[0] ?? []).map(({ name, shareOfLimit }, i) => ({
    name,
    tokensPerSecond: median(rounds.map((round) => round[i]?.tokensPerSecond ?? 0)),
    shareOfLimit: shareOfLimit === null ? null : median(rounds.map((round) => round[i]?.shareOfLimit ?? 0)),
  }));
  const report = {
    ...describeRun(llm.options.device, llm.shards.length),
    limits: medianLimits(),
    model: {
      path: request.model,
      storedDtype,
      dtype: llm.options.dtype,
      kvCacheDtype: llm.options.kvCacheDtype,
      quantization: llm.options.quantization,
      weightBytes: llm.shards.map(({ weightBytes }) => weightBytes),
      numRanks: llm.shards.length,
      loadSeconds,
    },
    speculation: llm.stats().speculation,
    measurements,
  };
  if (request.json) {
    console.log(publicJson(report));
    return;
  }
  const { model } = report;
  for (const line of runLines(report)) console.log(line);
  if (report.limits !== null) {
    const { readBytesPerSecond, flopsPerSecond } = report.limits;
    console.log(`reads ${(readBytesPerSecond / 1e9).toFixed(1)} GB/s, computes ${(flopsPerSecond / 1e9).toFixed(0)} GFLOP/s`);
  }
  const weights = model.quantization === 'none' ? model.storedDtype : model.quantization;
  console.log(
    `${model.path}: ${weights} weights, ${model.dtype} activations, ${model.kvCacheDtype} KV cache, ${model.numRanks} ${model.numRanks === 1 ? 'rank' : 'ranks'}, loaded in ${loadSeconds.toFixed(2)} s`,
  );
  if (report.speculation !== null) console.log(`with drafts: ${describeSpeculation(report.speculation)}`);
  console.log('');
  for (const { name, tokensPerSecond, shareOfLimit } of measurements) {
    const limit = name.startsWith('prefill') ? 'arithmetic' : 'bandwidth';
    const share = shareOfLimit === null ? '' : `   ${shareOfLimit.toFixed(2)} of ${limit}`;
    console.log(`${name.padEnd(18)} ${tokensPerSecond.toFixed(1).padStart(9)} tokens/s${share}`);
  }
}
