/** Requests to the scheduler, and the types of its answers. */
import { type SlotFloats, slotFloats } from '../../protocol/step-plan.ts';

/** Sampling parameters of one sequence, as native reads them. */
export interface SlotParams extends SlotFloats {
  /** 0 = all. */
  readonly topK: number;
  /** `0 … 2^64 - 1`; keys every random number of the request. */
  readonly seed: bigint;
  /** Min generated tokens before an end-of-sequence or stop token may be drawn. */
  readonly minTokens: number;
  /** Token ids and the values added to their logits. */
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[];
  /** The only tokens that may be drawn; null = all. */
  readonly allowedTokenIds: readonly number[] | null;
  /** Token sequences that are never completed. */
  readonly badWords: readonly (readonly number[])[];
  /** Top tokens reported beside each generated one; null = no log-probabilities. */
  readonly numLogprobs: number | null;
  /** The same for each prompt token but the first. */
  readonly numPromptLogprobs: number | null;
}

/** Greedy and unfiltered: the parameters of sequences that never sample. */
export const greedyParams: SlotParams = {
  ...slotFloats,
  topK: 0,
  seed: 0n,
  minTokens: 0,
  logitBias: [],
  allowedTokenIds: null,
  badWords: [],
  numLogprobs: null,
  numPromptLogprobs: null,
};

/** What a request has reported before it is submitted: the engine that ran it is gone. None of it is reported again. */
export interface Reported {
  /** Rows of logits or hidden states, or log-probabilities of prompt tokens. */
  readonly numRows: number;
  /** `[n]`, null for a sample that has ended; empty for a request that does not generate. */
  readonly samples: readonly (ReportedSample | null)[];
}

/** The part of an unfinished sample. */
export interface ReportedSample {
  /** Generation goes on after them, as after a preemption. */
  readonly outputTokenIds: readonly number[];
  /** Prompt tokens found cached at the sample's first admission; 0 before its first token. */
  readonly numCachedTokens: number;
}

/** Continue a prompt. */
export interface GenerateRequest {
  readonly type: 'generate';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
  /** Number of samples to draw. */
  readonly n: number;
  readonly maxTokens: number;
  /** End-of-sequence tokens; empty with `ignoreEos`. */
  readonly eosTokenIds: readonly number[];
  /** The caller's stop tokens. */
  readonly stopTokenIds: readonly number[];
  /** Lower is served first under `schedulingPolicy` `priority`; else 0. */
  readonly priority: number;
  readonly params: SlotParams;
  /** Absent for a new request. */
  readonly reported?: Reported | undefined;
}

/** Return the logits of every prompt token. */
export interface LogitsRequest {
  readonly type: 'logits';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
  readonly priority: number;
  readonly reported?: Reported | undefined;
}

/** Return the hidden states, after the final norm, of the prompt tokens from `firstRow` on. */
export interface HiddenRequest {
  readonly type: 'hidden';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
  readonly firstRow: number;
  readonly priority: number;
  readonly reported?: Reported | undefined;
}

export type EngineRequest = GenerateRequest | LogitsRequest | HiddenRequest;

/** Indices of a request's unfinished samples; 0 for one that does not generate. */
export function openSamples(request: EngineRequest): number[] {
  const indices = Array.from({ length: request.type === 'generate' ? request.n : 1 }, (_, index) => index);
  return indices.filter((index) => request.reported?.samples[index] !== null);
}

/** `stop` = an end-of-sequence token or a stop string, `length` = `maxTokens` or the model's context is used up. */
export type FinishReason = 'stop' | 'length';

/** Log-probabilities at one position, before any sampling parameter is applied. */
export interface TokenLogprobs {
  /** The text's token, then the top tokens, likeliest first. */
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]`. */
  readonly logprobs: readonly number[];
  /** Rank of the text's token among all tokens, from 1. */
  readonly rank: number;
}

/** What one step drafted for a sequence. */
export interface Drafted {
  readonly numDrafts: number;
  /** Accepted drafts, those past the end of the text included. */
  readonly numAccepted: number;
}
