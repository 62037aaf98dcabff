/** Limits of a loaded engine, and which requests fit them. */
import { unexpected } from '../../protocol/errors.ts';
import type { Sequence } from './sequence.ts';

/** Capacity and scheduling policy of a loaded engine. */
export interface SchedulerLimits {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  /** Max tokens per step; at least `maxNumSeqs`, so that every running sequence can decode. */
  readonly maxNumBatchedTokens: number;
  /** Max LM-head rows per step; at least `maxNumSeqs`. */
  readonly maxNumLogitRows: number;
  /** Whether blocks of finished and running sequences are reused for equal prefixes. */
  readonly enablePrefixCaching: boolean;
  /** `fcfs` = first come, first served; `priority` = lower numbers first, then first come. */
  readonly schedulingPolicy: 'fcfs' | 'priority';
  /** Max prefill tokens per sequence and step while others compete for the budget; 0 = bounded by the budget alone. */
  readonly longPrefillTokenThreshold: number;
}

/** Max tokens of a generating sequence that has the engine to itself; the last one generated is never cached. */
export function longestSequence({ maxModelLen, numBlocks, blockSize }: SchedulerLimits): number {
  return Math.min(maxModelLen, numBlocks * blockSize + 1);
}

/** @throws NdsError `ERR_REQUEST` for a prompt that does not fit even with the engine to itself. */
export function checkFits(sequence: Sequence, { maxModelLen, numBlocks, blockSize, schedulingPolicy }: SchedulerLimits): void {
  const { request, numPromptTokens } = sequence;
  const refuse = (expected: string, received: string) =>
    unexpected('ERR_REQUEST', expected, `request ${request.requestId}`, received, String);
  if (numPromptTokens === 0) throw refuse('at least one prompt token', 'an empty prompt');
  if (request.priority !== 0 && schedulingPolicy !== 'priority') {
    throw refuse("no priority where schedulingPolicy is 'fcfs'", `priority ${request.priority}`);
  }
  const longest = request.type === 'generate' ? maxModelLen - 1 : maxModelLen;
  if (numPromptTokens > longest) {
    throw refuse(`a prompt of at most ${longest} tokens (maxModelLen is ${maxModelLen})`, `${numPromptTokens} tokens`);
  }
  const numCacheable = numBlocks * blockSize;
  if (numPromptTokens > numCacheable) {
    throw refuse(`a prompt of at most ${numCacheable} tokens (all KV blocks; raise kvCacheMemoryBytes)`, `${numPromptTokens} tokens`);
  }
}
