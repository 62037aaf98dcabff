/** What a loaded model's engine can hold, and which requests fit it. */
import { unexpected } from '../../protocol/errors.ts';
import type { Sequence } from './sequence.ts';

/** The limits of a loaded model, and how its engine deals with them. */
export interface SchedulerLimits {
  readonly numBlocks: number;
  readonly blockSize: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  /** Tokens of one step; at least `maxNumSeqs`, so that every running sequence can decode. */
  readonly maxNumBatchedTokens: number;
  /** Rows of one step that go through the LM head; at least `maxNumSeqs`. */
  readonly maxNumLogitRows: number;
  /** Whether blocks of finished and running sequences serve others whose text begins alike. */
  readonly enablePrefixCaching: boolean;
  /** `fcfs` = first come, first served; `priority` = lower numbers first, then first come. */
  readonly schedulingPolicy: 'fcfs' | 'priority';
  /** Prompt tokens of one sequence in a step as long as others want the room; 0 = as many as there is room for. */
  readonly longPrefillTokenThreshold: number;
}

/** @throws NdsError `ERR_REQUEST` for a request that could not finish even with the engine to itself. */
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
  // The last token generated is never cached.
  const numCached = request.type === 'generate' ? sequence.maxNumTokens - 1 : numPromptTokens;
  if (numCached > numBlocks * blockSize) {
    const held = `all KV blocks together hold ${numBlocks * blockSize}; raise kvCacheMemoryBytes`;
    throw refuse(`prompt and maxTokens that need at most ${numBlocks * blockSize + 1} tokens (${held})`, `${sequence.maxNumTokens} tokens`);
  }
}
