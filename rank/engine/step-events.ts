/** The events that tell of a step. */
import type { SequenceUpdate } from '../scheduler/result-reader.ts';
import type { EngineEvent } from './messages.ts';

/** What a step brought to one sequence, in order; nothing for a part of a prompt. */
export function eventsOf(update: SequenceUpdate): EngineEvent[] {
  const { sequence, tokenIds, logprobs, rows, numRows, promptLogprobs, drafted, finishReason, stopTokenId, finished } = update;
  const { request, index, numHitTokens } = sequence;
  const { requestId } = request;
  if (rows !== null) return [{ type: 'rows', requestId, rows, numRows, finished }];
  const events: EngineEvent[] = promptLogprobs.length > 0 ? [{ type: 'promptLogprobs', requestId, logprobs: promptLogprobs }] : [];
  if (tokenIds.length === 0) return events;
  const numCachedTokens = numHitTokens ?? 0;
  return [...events, { type: 'tokens', requestId, index, tokenIds, logprobs, drafted, finishReason, stopTokenId, numCachedTokens }];
}
