/** Measures prefill and decode on a loaded model, in rounds, with the machine's limits beside each. */
import { readFileSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { numUsableCores, readProcessors } from '../../protocol/processors.ts';
import type { LLM } from '../../rank/index.ts';
import { native } from '../../rank/native.ts';
import { type Case, nameOf, promptOf } from './cases.ts';

/** Measured limits of the processors. */
export interface Probe {
  readonly readBytesPerSecond: number;
  readonly flopsPerSecond: number;
  /** Multiply-adds of bytes, each two operations. */
  readonly int8OpsPerSecond: number;
}

/** One case in one round. */
export interface Measured {
  readonly tokensPerSecond: number;
  /** Just before; null on CUDA, where the cores compute nothing. */
  readonly probe: Probe | null;
  /** Of rank 0's process, for each step: page faults without I/O, and context switches. */
  readonly minorFaultsPerStep: number;
  readonly contextSwitchesPerStep: number;
  /** System calls that read or write files, pipes and sockets; null where the system does not count them. */
  readonly ioCallsPerStep: number | null;
}

const greedy = { temperature: 0, ignoreEos: true };

/** Warm-ups take as long unless their number is given: meanwhile the JavaScript of a step is compiled, which a small model's speed shows. */
const warmUpMs = 3000;

export interface Rounds {
  readonly numWarmups: number;
  /** `[numRounds][numCases]`, warm-ups left out. */
  readonly measured: readonly Measured[][];
}

/** @param plan.warmups rounds before those that count; null = at least one, and three seconds. */
export async function measureRounds(
  llm: LLM,
  vocabSize: number,
  cases: readonly Case[],
  { warmups, rounds }: { readonly warmups: number | null; readonly rounds: number },
  onProgress: (numDone: number, total: number) => void,
): Promise<Rounds> {
  for (const one of cases) checkRoom(llm, one);
  const measured: Measured[][] = [];
  const start = performance.now();
  let [salt, numDone, numWarmups] = [0, 0, 0];
  while (measured.length < rounds) {
    const isWarm = warmups === null ? numWarmups > 0 && performance.now() - start >= warmUpMs : numWarmups >= warmups;
    if (!isWarm) numWarmups++;
    const total = (Math.max(warmups ?? 1, numWarmups) + rounds) * cases.length;
    const results: Measured[] = [];
    for (const one of cases) {
      results.push(await measureCase(llm, vocabSize, one, salt));
      salt += one.batchSize;
      onProgress(++numDone, total);
    }
    if (isWarm) measured.push(results);
  }
  return { numWarmups, measured };
}

/** @param salt makes prompts that no other case has. */
async function measureCase(llm: LLM, vocabSize: number, one: Case, salt: number): Promise<Measured> {
  const prompt = (length: number, i: number) => ({ promptTokenIds: promptOf(length, salt + i, vocabSize) });
  const probe = probeOf(llm);
  const [before, callsBefore] = [process.resourceUsage(), numIoCalls()];
  const { tokensPerSecond, numSteps } = await (one.phase === 'prefill' ? prefill : decode)(llm, one, prompt);
  const [after, callsAfter] = [process.resourceUsage(), numIoCalls()];
  const switches = (usage: NodeJS.ResourceUsage) => usage.voluntaryContextSwitches + usage.involuntaryContextSwitches;
  return {
    tokensPerSecond,
    probe,
    minorFaultsPerStep: (after.minorPageFault - before.minorPageFault) / numSteps,
    contextSwitchesPerStep: (switches(after) - switches(before)) / numSteps,
    ioCallsPerStep: callsBefore === null || callsAfter === null ? null : (callsAfter - callsBefore) / numSteps,
  };
}

type Prompts = (length: number, i: number) => { readonly promptTokenIds: number[] };
interface Speed {
  readonly tokensPerSecond: number;
  readonly numSteps: number;
}

/** Tokens of a prompt, after `depth` tokens that the prefix cache holds. */
async function prefill(llm: LLM, { numTokens, depth }: Case, prompt: Prompts): Promise<Speed> {
  if (depth > 0) await llm.generate(prompt(depth + 1, 0), { ...greedy, maxTokens: 1 });
  const { numSteps } = llm.stats();
  const start = performance.now();
  const output = await llm.generate(prompt(depth + numTokens, 0), { ...greedy, maxTokens: 1 });
  const seconds = (performance.now() - start) / 1000;
  checkCached(output.numCachedTokens, depth);
  return { tokensPerSecond: numTokens / seconds, numSteps: llm.stats().numSteps - numSteps };
}

/** Steps after the first token, which ends the prefill: the engine's own time from a sequence's first token to its last. */
async function decode(llm: LLM, { numTokens, depth, batchSize }: Case, prompt: Prompts): Promise<Speed> {
  // One token more than is cached, so that all sequences begin in one step.
  const prompts = Array.from({ length: batchSize }, (_, i) => prompt(depth + 1, i));
  if (depth > 0) await llm.generate(prompts, { ...greedy, maxTokens: 1 });
  const before = llm.stats();
  const outputs = await llm.generate(prompts, { ...greedy, maxTokens: numTokens + 1 });
  const after = llm.stats();
  for (const { numCachedTokens } of outputs) checkCached(numCachedTokens, depth);
  const count = after.histograms.decode.count - before.histograms.decode.count;
  const seconds = (after.histograms.decode.sum - before.histograms.decode.sum) / batchSize;
  if (count !== batchSize || after.numPreemptions > before.numPreemptions)
    throw new NdsError('ERR_INTERNAL', `Expected ${batchSize} sequences that decode together but received ${count}`);
  return { tokensPerSecond: (numTokens * batchSize) / seconds, numSteps: after.numSteps - before.numSteps };
}

function checkCached(numCachedTokens: number, depth: number): void {
  if (numCachedTokens !== depth)
    throw new NdsError('ERR_INTERNAL', `Expected ${depth} tokens in the prefix cache but received ${numCachedTokens}`);
}

/** @throws NdsError `ERR_USAGE` for a case that the model's limits or its KV cache have no room for. */
function checkRoom(llm: LLM, one: Case): void {
  const { maxModelLen, blockSize, numBlocks } = llm.options;
  if (one.depth % blockSize !== 0)
    throw new NdsError('ERR_USAGE', `Expected a multiple of the block size, ${blockSize}, for --depth but received ${one.depth}`);
  const numNew = one.phase === 'prefill' ? one.numTokens : one.numTokens + 1;
  const [length, name] = [one.depth + numNew + 1, one.phase === 'prefill' ? 'prompt-len' : 'max-tokens'];
  if (length > maxModelLen) {
    const most = maxModelLen - one.depth - (length - one.depth - one.numTokens);
    const where = one.depth === 0 ? '' : ` at depth ${one.depth}`;
    throw new NdsError('ERR_USAGE', `Expected at most ${most} for --${name} with this model${where} but received ${one.numTokens}`);
  }
  const numNeeded = one.batchSize * Math.ceil(length / blockSize);
  if (numNeeded > numBlocks) {
    throw new NdsError(
      'ERR_USAGE',
      `Expected a KV cache of ${numNeeded * blockSize} tokens for ${nameOf(one)} but it has ${numBlocks * blockSize}: --kv-cache-memory-bytes`,
    );
  }
}

/** Calls of this process so far. */
function numIoCalls(): number | null {
  try {
    const counts = [...readFileSync('/proc/self/io', 'utf8').matchAll(/^sysc[rw]: (\d+)$/gm)].map(([, count]) => Number(count));
    return counts.length === 2 ? counts.reduce((sum, count) => sum + count) : null;
  } catch {
    return null;
  }
}

/** Reads 512 MB of memory and does arithmetic, on all cores. */
function probeOf(llm: LLM): Probe | null {
  if (llm.options.device === 'cuda') return null;
  const run = native().testing['probe'] as unknown as (options: { numThreads: number; bytes: number }) => Probe;
  return run({ numThreads: numUsableCores(readProcessors()), bytes: 512e6 });
}
