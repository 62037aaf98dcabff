/** What the scheduler is asked to run, and the terms in which it answers. */
import { type SlotFloats, slotFloats } from '../../protocol/step-plan.ts';

/** What native needs to know to sample for one sequence. */
export interface SlotParams extends SlotFloats {
  /** 0 = all. */
  readonly topK: number;
  /** `0 … 2^64 - 1`, the key of every random number of the request. */
  readonly seed: bigint;
  /** Tokens to generate before one that ends the text may be drawn. */
  readonly minTokens: number;
  /** Token id and what is added to its logit. */
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[];
  /** The only tokens that may be drawn; null = all. */
  readonly allowedTokenIds: readonly number[] | null;
  /** Runs of tokens that are never completed. */
  readonly badWords: readonly (readonly number[])[];
  /** Likeliest tokens to report beside each generated one; null = no log-probabilities. */
  readonly numLogprobs: number | null;
  /** The same for each prompt token but the first. */
  readonly numPromptLogprobs: number | null;
}

/** Nothing but the likeliest token: what sequences carry that never sample. */
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

/** Continue a prompt. */
export interface GenerateRequest {
  readonly type: 'generate';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
  /** How many samples to draw. */
  readonly n: number;
  readonly maxTokens: number;
  /** Tokens that end the text; empty with `ignoreEos`. */
  readonly eosTokenIds: readonly number[];
  /** More tokens that end the text, as the caller wants it. */
  readonly stopTokenIds: readonly number[];
  /** Lower numbers are served first, where the engine schedules by priority; else 0. */
  readonly priority: number;
  readonly params: SlotParams;
}

/** Hand back the logits of every token of a prompt. */
export interface LogitsRequest {
  readonly type: 'logits';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
  readonly priority: number;
}

export type EngineRequest = GenerateRequest | LogitsRequest;

/** `stop` = an end-of-sequence token or a stop string, `length` = `maxTokens` or the model's context is used up. */
export type FinishReason = 'stop' | 'length';

/** Log-probabilities at one position, before any sampling parameter acts. */
export interface TokenLogprobs {
  /** The token of the text, then the likeliest tokens, best first. */
  readonly tokenIds: readonly number[];
  /** Of each of them. */
  readonly logprobs: readonly number[];
  /** Place of the token of the text among all tokens, from 1. */
  readonly rank: number;
}

/** What one step drafted for a sequence. */
export interface Drafted {
  readonly numDrafts: number;
  /** Those that stayed, up to the end of the text and past it. */
  readonly numAccepted: number;
}
