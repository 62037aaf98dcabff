/**
 * Calls with every parameter whose outcome speculation must preserve, and the parts of their outputs that must be
 * equal.
 */
import type { Test } from 'tap';
import type { LLM, LLMOptions, Prompt, RequestOutput, SamplingParams } from '../../rank/index.ts';

export const tale = 'Once upon a time';
/** A repetitive text, which n-grams and suffixes match. */
export const refrain = { promptTokenIds: Array.from({ length: 70 }, (_, i) => 300 + (i % 7)) };
export const base: LLMOptions = { dtype: 'float32', maxModelLen: 256, numThreads: 1, kvCacheMemoryBytes: 4 << 20 };

export type Call = readonly [prompt: Prompt, params: SamplingParams];

/** Every parameter that drafts may meet, and every way to finish. */
export const calls: readonly Call[] = [
  [tale, { temperature: 0, maxTokens: 40, logprobs: 3, ignoreEos: true }],
  [tale, { seed: 1, maxTokens: 50, logprobs: 0, ignoreEos: true, n: 3 }],
  [refrain, { temperature: 0, maxTokens: 40, logprobs: 1, promptLogprobs: 1, ignoreEos: true }],
  [refrain, { seed: 2, temperature: 0.4, maxTokens: 40, ignoreEos: true }],
  ['Tom', { seed: 3, temperature: 1.2, topK: 40, topP: 0.9, minP: 0.02, maxTokens: 40, logprobs: 2, ignoreEos: true }],
  ['Tom', { seed: 4, presencePenalty: 0.7, frequencyPenalty: 0.5, repetitionPenalty: 1.2, maxTokens: 40, ignoreEos: true }],
  ['The dog', { seed: 5, temperature: 0.6, badWords: ['the', 'was a', 'time'], logitBias: { 12: 2 }, maxTokens: 40, ignoreEos: true }],
  ['The dog', { seed: 6, allowedTokenIds: [462, 466, 950, 12, 14, 259], maxTokens: 40, ignoreEos: true }],
  // End of sequence, made likely; stop tokens and strings, some of them only after several steps.
  ...[7, 8, 9, 10].map((seed): Call => [tale, { seed, logitBias: { 0: 9 }, maxTokens: 60, logprobs: 0 }]),
  ...[11, 12].map((seed): Call => [tale, { seed, stopTokenIds: [12, 14], minTokens: 9, maxTokens: 60, ignoreEos: true, logprobs: 0 }]),
  ...['e', 'the', '. ', 'and'].map((stop, i): Call => [tale, { seed: 20 + i, stop, maxTokens: 60, ignoreEos: true, logprobs: 0 }]),
  ...[1, 2, 3, 4, 5, 6, 7].map((maxTokens): Call => [refrain, { seed: maxTokens, temperature: 0.3, maxTokens, ignoreEos: true }]),
];

export function generate(llm: LLM, some: readonly Call[] = calls): Promise<RequestOutput[]> {
  return llm.generate(
    some.map(([prompt]) => prompt),
    some.map(([, params]) => params),
  );
}

/** Everything that speculation must not change. */
export const visible = (outputs: readonly RequestOutput[]) =>
  outputs.map(({ promptLogprobs, outputs }) => ({ promptLogprobs, outputs: outputs.map(({ speculation: _, ...rest }) => rest) }));

export function checkEmpty(t: Test, llm: LLM): void {
  const { numBlocks } = llm.options;
  t.match(llm.stats(), { numRunning: 0, numWaiting: 0, numFreeBlocks: numBlocks, numFreeDraftBlocks: numBlocks }, 'all blocks are free');
}
