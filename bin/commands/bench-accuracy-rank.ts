/** A rank of `ndsrun bench accuracy`: `bench-accuracy-rank REQUEST`. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { ownNumThreads } from '../../rank/gang/threads.ts';
import { resolveModel } from '../../rank/hub/resolve-model.ts';
import type { LLM } from '../../rank/index.ts';
import { readModel } from '../../rank/model/index.ts';
import { type AccuracySums, accuracyOf, addSums, compareLogits, noSums, windowsOf } from '../bench/accuracy.ts';
import { accuracyReport, accuracyTable, type Measured } from '../bench/accuracy-report.ts';
import { LogitsFile } from '../bench/logits-file.ts';
import { describeModel } from '../bench/model-records.ts';
import { writeReport } from '../bench/output.ts';
import { openBar } from '../progress-bar.ts';
import type { BenchAccuracyRequest, Variant } from './bench-accuracy.ts';
import { describeRun } from './bench-machine.ts';
import { rankMain } from './rank-main.ts';
import { loadWithBar } from './rank-progress.ts';

const request = JSON.parse(process.argv[2] ?? '') as BenchAccuracyRequest;
const { model, variants, outputs } = request;
/** Integers and 8-bit floats of a checkpoint as bfloat16, so that activations are not rounded. */
const reference: Variant = { quantization: 'expand', kvCacheDtype: 'auto' };
await rankMain(main);

async function main(): Promise<void> {
  using logitsFile = new LogitsFile();
  const measured: Measured[] = [];
  let windows: number[][] = [];
  for (const variant of [reference, ...variants]) {
    const start = performance.now();
    await using llm = await loadWithBar(model, { ...request.load, ...variant }, outputs.quiet);
    const loadSeconds = (performance.now() - start) / 1000;
    const isReference = variant === reference;
    if (isReference) windows = await windowsOfText(llm);
    const bar = openBar(`computing ${variant.quantization}`, 'items', outputs.quiet);
    let sums = noSums;
    for (const [i, tokenIds] of windows.entries()) {
      const { data } = await llm.computeLogits(tokenIds);
      checkFinite(data, variant);
      if (isReference) logitsFile.append(data);
      sums = addSums(sums, compareLogits(data, isReference ? data : logitsFile.read(i), tokenIds));
      bar.update(i + 1, windows.length);
    }
    bar.end();
    measured.push(await describe(llm, variant, loadSeconds, sums));
  }
  writeReport(accuracyReport(measured), outputs, accuracyTable);
}

function windowLenOf({ options }: LLM): number {
  return request.windowLen ?? Math.min(512, options.maxModelLen);
}

/** `[numWindows][numTokens]` ids. Where the tokenizer begins a prompt with a special token, each window has it. */
async function windowsOfText(llm: LLM): Promise<number[][]> {
  const text = readFileSync(request.textFile, 'utf8');
  const tokenIds = await llm.tokenizer.encode(text, { addSpecialTokens: false });
  const { bosTokenId } = llm.tokenizer;
  const [first] = await llm.tokenizer.encode(text);
  const begin = first === bosTokenId && first !== undefined && tokenIds[0] !== first ? [first] : [];
  const longest = llm.options.maxModelLen;
  const windowLen = windowLenOf(llm);
  if (windowLen > longest)
    throw new NdsError('ERR_USAGE', `Expected at most ${longest} for --window with this model but received ${windowLen}`);
  if (windowLen <= begin.length + 1)
    throw new NdsError('ERR_USAGE', `Expected at least ${begin.length + 2} for --window with this model but received ${windowLen}`);
  const taken = tokenIds.slice(0, request.maxTokens ?? undefined);
  const ranges = windowsOf(taken.length, windowLen - begin.length);
  if (ranges.length === 0) throw new NdsError('ERR_USAGE', `Expected at least 2 tokens for --text but received ${taken.length}`);
  return ranges.map(([from, to]) => [...begin, ...taken.slice(from, to)]);
}

function checkFinite(logits: Float32Array, { quantization, kvCacheDtype }: Variant): void {
  const bad = logits.findIndex((logit) => !Number.isFinite(logit));
  if (bad < 0) return;
  const where = `weights ${quantization}, KV cache ${kvCacheDtype}`;
  throw new NdsError('ERR_INTERNAL', `Expected finite logits of ${model} with ${where} but received ${logits[bad]}`);
}

async function describe(llm: LLM, variant: Variant, loadSeconds: number, sums: AccuracySums): Promise<Measured> {
  const { device } = llm.options;
  return {
    isReference: variant === reference,
    kvCache: variant.kvCacheDtype,
    accuracy: accuracyOf(sums),
    windowLen: windowLenOf(llm),
    numRanks: llm.shards.length,
    numThreads: device === 'cuda' ? null : ownNumThreads(request.load.numThreads),
    run: describeRun(device, llm.shards.length),
    model: describeModel(llm, readModel(await resolveModel(model)), { model, isShape: false }, loadSeconds),
  };
}
