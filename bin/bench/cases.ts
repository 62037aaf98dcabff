/** What `ndsrun bench latency`, `throughput` and `MODEL` measure, and what a token of each costs. Pure. */
import type { ModelConfig } from '../../rank/model/index.ts';

/** One measurement. */
export interface Case {
  /** `prefill`: `numTokens` of a prompt; `decode`: `numTokens` steps after the first token. */
  readonly phase: 'prefill' | 'decode';
  readonly numTokens: number;
  /** Tokens of each sequence that are cached before. */
  readonly depth: number;
  /** Sequences at once. */
  readonly batchSize: number;
}

/** Cases by their axes; each may have several values. */
export interface CaseAxes {
  readonly promptLens: readonly number[];
  readonly outputLens: readonly number[];
  readonly depths: readonly number[];
  /** Of decoding; prefill is of one sequence. */
  readonly batchSizes: readonly number[];
}

/** All cases: prefill, then decode, each by depth. A prompt of 0 tokens is no case. */
export function casesOf({ promptLens, outputLens, depths, batchSizes }: CaseAxes): Case[] {
  const prompts = promptLens.filter((numTokens) => numTokens > 0);
  return depths.flatMap((depth): Case[] => [
    ...prompts.map((numTokens) => ({ phase: 'prefill' as const, numTokens, depth, batchSize: 1 })),
    ...outputLens.flatMap((numTokens) => batchSizes.map((batchSize) => ({ phase: 'decode' as const, numTokens, depth, batchSize }))),
  ]);
}

/** llama-bench's name: `pp512`, `tg128 @ d1024`; with `, batch 8` where several decode together. */
export function nameOf({ phase, numTokens, depth, batchSize }: Case): string {
  const kind = `${phase === 'prefill' ? 'pp' : 'tg'}${numTokens}`;
  return `${kind}${depth === 0 ? '' : ` @ d${depth}`}${batchSize === 1 ? '' : `, batch ${batchSize}`}`;
}

/** Mean number of tokens that a token attends to, itself included. */
export function meanContext({ numTokens, depth }: Case): number {
  return depth + (numTokens + 1) / 2;
}

/**
 * Bytes read for one decoded token: the weights once a step, shared by the batch, and the KV of the token's context.
 * @param weightBytes - of all ranks, without embedding rows
 */
export function bytesPerToken(one: Case, weightBytes: number, kvBytesPerToken: number): number {
  return weightBytes / one.batchSize + meanContext(one) * kvBytesPerToken;
}

/** Floating-point operations of one token; of the LM head for decode only, as prefill has one row of logits. */
export function flopsPerToken(one: Case, config: ModelConfig): number {
  const { numHiddenLayers, numAttentionHeads, headDim, vocabSize, hiddenSize } = config;
  const head = one.phase === 'decode' ? vocabSize * hiddenSize : 0;
  const attention = 4 * numHiddenLayers * numAttentionHeads * headDim * meanContext(one);
  return 2 * (numLayerParameters(config) + head) + attention;
}

/** Elements of the matrices of all layers: each is read once per step and multiplied once per token. */
export function numLayerParameters(config: ModelConfig): number {
  const { hiddenSize, intermediateSize, numHiddenLayers, numAttentionHeads, numKvHeads, headDim } = config;
  const attention = hiddenSize * headDim * (2 * numAttentionHeads + 2 * numKvHeads);
  return numHiddenLayers * (attention + 3 * hiddenSize * intermediateSize);
}

/** `[length]` token ids, distinct for each salt, so that no cached prefix is reused by chance. */
export function promptOf(length: number, salt: number, vocabSize: number): number[] {
  return Array.from({ length }, (_, i) => {
    let mixed = Math.imul(salt + 1, 0x9e3779b1) ^ Math.imul(i + 1, 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 13)) >>> 0) % vocabSize;
  });
}
