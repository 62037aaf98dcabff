/** A rank of `ndsrun bench spec`: `bench-spec-rank REQUEST`. */
import { NdsError } from '../../protocol/errors.ts';
import { ownNumThreads } from '../../rank/gang/threads.ts';
import { resolveModel } from '../../rank/hub/resolve-model.ts';
import { LLM, type Prompt, type RequestOutput, type SpeculationStats, type SpeculativeConfig } from '../../rank/index.ts';
import { readModel } from '../../rank/model/index.ts';
import { runLines } from '../bench/format.ts';
import { describeModel } from '../bench/model-records.ts';
import { writeReport } from '../bench/output.ts';
import type { BenchModel } from '../bench/record.ts';
import { specRecords } from '../bench/spec-records.ts';
import { openBar } from '../progress-bar.ts';
import { describeRun } from './bench-machine.ts';
import type { BenchSpecRequest } from './bench-spec.ts';
import { buildPrompts } from './bench-spec-prompts.ts';
import { type Measured, type Result, summarize, tables, type Variant } from './bench-spec-report.ts';
import { rankMain } from './rank-main.ts';
import { loadWithBar } from './rank-progress.ts';

/** One run of one temperature at one batch size. */
interface Run {
  readonly temperature: number;
  readonly batchSize: number;
  readonly seconds: number;
  /** `[numRequests]` output token ids. */
  readonly tokenIds: readonly (readonly number[])[];
  readonly speculation: readonly SpeculationStats[];
}

/** Min requests per run; smaller batches run them one after another, as one request alone says little. */
const fewestRequests = 2;
/** Number of variants between two runs of plain decoding. */
const variantsBetweenPlain = 3;

const request = JSON.parse(process.argv[2] ?? '') as BenchSpecRequest;
const { target, rules, ks, temperatures, batchSizes, maxTokens } = request;
const load = { ...request.load, maxNumSeqs: Math.max(64, ...batchSizes) };
const variants = rules.flatMap((rule): Variant[] => [...ks, null].map((k) => ({ rule, k })));
await rankMain(main);

async function main(): Promise<void> {
  const { prompts, model } = await prepare();
  // Warms caches, pages and compiled code, with fixed K and with adaptive: a process's first models are slow.
  const isFirst = ({ rule, k }: Variant) => rule === rules[0] && (k === null || k === ks[0]);
  const bar = openBar('measuring', 'items', request.quiet);
  let numRuns = 0;
  const onRun = () => bar.update(++numRuns, numRunsOf(variants.filter(isFirst)) + request.rounds * numRunsOf(variants));
  await measureRound(prompts, variants.filter(isFirst), 0, onRun);
  const rounds: Measured[][] = [];
  for (let round = 1; round <= request.rounds; round++) rounds.push(await measureRound(prompts, variants, round, onRun));
  bar.end();
  const results = (rounds[0] ?? []).map((_, i) => summarize(rounds.flatMap((round) => round[i] ?? [])));
  print(results, model);
}

/** Builds the prompts, which need the model's tokenizer and for some methods the model. */
async function prepare() {
  const start = performance.now();
  await using llm = await loadWithBar(target, load, request.quiet);
  const loadSeconds = (performance.now() - start) / 1000;
  const prompts = await buildPrompts(llm, request, Math.max(fewestRequests, ...batchSizes));
  const { maxModelLen, dtype, device } = llm.options;
  const outputs = await llm.generate(prompts, { maxTokens: 1 });
  const room = maxModelLen - Math.max(...outputs.map(({ promptTokenIds }) => promptTokenIds.length));
  if (maxTokens > room) {
    throw new NdsError('ERR_USAGE', `Expected at most ${room} for --max-tokens with this model and prompt but received ${maxTokens}`);
  }
  const described = describeModel(llm, readModel(await resolveModel(target)), { model: target, isShape: false }, loadSeconds);
  const numThreads = device === 'cuda' ? null : ownNumThreads(load.numThreads);
  return { prompts, model: { path: target, dtype, device, numRanks: llm.shards.length, described, numThreads } };
}

function configOf({ rule, k }: Variant): SpeculativeConfig {
  return {
    method: request.method,
    ...(request.draft !== null && { model: request.draft }),
    numSpeculativeTokens: k ?? Math.max(...ks),
    adaptiveK: k === null,
    rejectionSampleMethod: rule,
    draftSampleMethod: request.draftSampleMethod,
    // Prompts recur: a cached output would be drafted without a mistake.
    suffixDecodingMaxCachedRequests: 0,
  };
}

/** Every variant once, with plain decoding in between. Each round has its own seeds, and so its own texts. */
async function measureRound(prompts: readonly Prompt[], chosen: readonly Variant[], round: number, onRun: () => void): Promise<Measured[]> {
  const measured: Measured[] = [];
  const reference = await measure(prompts, round, undefined, onRun);
  let before = reference;
  for (let first = 0; first < chosen.length; first += variantsBetweenPlain) {
    const runs: [Variant, readonly Run[]][] = [];
    for (const variant of chosen.slice(first, first + variantsBetweenPlain)) {
      runs.push([variant, await measure(prompts, round, configOf(variant), onRun)]);
    }
    const after = await measure(prompts, round, undefined, onRun);
    for (const [variant, cells] of runs) {
      cells.forEach(({ tokenIds, ...cell }, i) => {
        const isSame = JSON.stringify(tokenIds) === JSON.stringify(reference[i]?.tokenIds);
        measured.push({
          ...variant,
          ...cell,
          numTokens: tokenIds.length * maxTokens,
          plainSeconds: ((before[i]?.seconds ?? 0) + (after[i]?.seconds ?? 0)) / 2,
          identicalTokens: variant.rule === 'coupled' ? isSame : null,
        });
      });
    }
    before = after;
  }
  return measured;
}

/** Runs of a round: each variant, and plain decoding before the first and after each few. */
function numRunsOf({ length }: readonly Variant[]): number {
  return (length + 1 + Math.ceil(length / variantsBetweenPlain)) * temperatures.length * batchSizes.length;
}

/** All temperatures and batch sizes, on a newly loaded model: only one can be loaded at a time. */
async function measure(
  prompts: readonly Prompt[],
  round: number,
  speculativeConfig: SpeculativeConfig | undefined,
  onRun: () => void,
): Promise<Run[]> {
  await using llm = await LLM.load(target, { ...load, speculativeConfig });
  const most = prompts.slice(0, Math.max(...batchSizes));
  await llm.generate(most, { maxTokens: Math.min(16, maxTokens), ignoreEos: true, seed: 0 });
  const runs: Run[] = [];
  for (const temperature of temperatures) {
    for (const batchSize of batchSizes) {
      runs.push(await runOnce(llm, prompts, { temperature, batchSize, round }));
      onRun();
    }
  }
  return runs;
}

/** Runs whole requests, prefill included. */
async function runOnce(
  llm: LLM,
  prompts: readonly Prompt[],
  { temperature, batchSize, round }: { readonly temperature: number; readonly batchSize: number; readonly round: number },
): Promise<Run> {
  const numRequests = Math.ceil(fewestRequests / batchSize) * batchSize;
  const outputs: RequestOutput[] = [];
  const start = performance.now();
  for (let first = 0; first < numRequests; first += batchSize) {
    const params = Array.from({ length: batchSize }, (_, i) => ({
      temperature,
      maxTokens,
      ignoreEos: true,
      seed: round * 1000 + first + i,
    }));
    outputs.push(...(await llm.generate(prompts.slice(first, first + batchSize), params)));
  }
  const seconds = (performance.now() - start) / 1000;
  const speculation = outputs.flatMap(({ outputs: [output] }) => output.speculation ?? []);
  return { temperature, batchSize, seconds, tokenIds: outputs.map(({ tokenIds }) => tokenIds), speculation };
}

interface BenchedModel {
  readonly path: string;
  readonly dtype: string;
  readonly device: 'cpu' | 'cuda';
  readonly numRanks: number;
  readonly described: BenchModel;
  readonly numThreads: number | null;
}

/** @throws NdsError `ERR_MISMATCH`, after printing, where tokens had to be identical and were not. */
function print(results: readonly Result[], model: BenchedModel): void {
  const coupled = results.filter(({ identicalTokens }) => identicalTokens !== null);
  const wrong = coupled.filter(({ identicalTokens }) => !identicalTokens);
  const identicalTokens = coupled.length === 0 ? null : wrong.length === 0;
  const { method, draft, draftSampleMethod, rounds } = request;
  const run = describeRun(model.device, model.numRanks);
  const target = { path: model.path, dtype: model.dtype, device: model.device, numRanks: model.numRanks };
  const report = {
    title: `ndsrun bench spec: ${target.path}, drafts from ${draft ?? method}`,
    records: specRecords(results, { ...model, run, rounds, draft: draft ?? method }),
    extra: { ...run, target, method, draft, draftSampleMethod, maxTokens, rounds, identicalTokens, results },
  };
  const ranks = `${model.numRanks} ${model.numRanks === 1 ? 'rank' : 'ranks'}`;
  const lines = [
    ...runLines(run),
    `${model.path} (${model.dtype}, ${ranks}), drafts from ${draft ?? method}`,
    `${maxTokens} tokens a sequence, medians of ${rounds}; adaptive K goes up to ${Math.max(...ks)}; speed-up over plain decoding`,
    ...tables(results),
    ...(identicalTokens ? ['', 'coupled: tokens are identical with and without speculation'] : []),
  ];
  writeReport(report, request, () => `${lines.join('\n')}\n`);
  const [first] = wrong;
  if (first === undefined) return;
  const where = `K ${first.k ?? 'adaptive'}, temperature ${first.temperature}, batch ${first.batchSize}`;
  throw new NdsError(
    'ERR_MISMATCH',
    `Expected the tokens of plain decoding with coupled drafts but received others in ${wrong.length} cases, first with ${where}`,
  );
}
