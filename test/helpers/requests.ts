/** Requests of the engine with defaults for everything that a test does not set. */
import type { SchedulerLimits } from '../../rank/scheduler/limits.ts';
import { type GenerateRequest, greedyParams, type HiddenRequest, type LogitsRequest } from '../../rank/scheduler/request.ts';

export function generateRequest(
  requestId: number,
  promptTokenIds: readonly number[],
  overrides: Partial<Omit<GenerateRequest, 'type'>> = {},
): GenerateRequest {
  const rest = { n: 1, maxTokens: 10, eosTokenIds: [], stopTokenIds: [], priority: 0, params: greedyParams };
  return { type: 'generate', requestId, promptTokenIds, ...rest, ...overrides };
}

export function logitsRequest(requestId: number, promptTokenIds: readonly number[]): LogitsRequest {
  return { type: 'logits', requestId, promptTokenIds, priority: 0 };
}

export function hiddenRequest(requestId: number, promptTokenIds: readonly number[], firstRow = 0): HiddenRequest {
  return { type: 'hidden', requestId, promptTokenIds, firstRow, priority: 0 };
}

/** Limits of a small engine with no special features. */
export const smallLimits: SchedulerLimits = {
  numBlocks: 100,
  blockSize: 4,
  maxModelLen: 64,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 8,
  maxNumLogitRows: 8,
  enablePrefixCaching: false,
  schedulingPolicy: 'fcfs',
  longPrefillTokenThreshold: 0,
};
