/** What an `LLM` and its engine say to each other: structured-clonable values only, so that the engine can move to another thread. */
import { NdsError, type NdsErrorCode, toNdsError } from '../../protocol/errors.ts';
import type { SpeculationStats } from '../speculative/counts.ts';
import type { MetricsSnapshot } from './metrics.ts';

/** What native needs to know to sample for one sequence. */
export interface SlotParams {
  /** 0 = greedy. */
  readonly temperature: number;
  readonly topP: number;
  readonly minP: number;
  /** 0 = all. */
  readonly topK: number;
  /** `0 … 2^64 - 1`, the key of every random number of the request. */
  readonly seed: bigint;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 1 = none. */
  readonly repetitionPenalty: number;
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
  temperature: 0,
  topP: 1,
  minP: 0,
  topK: 0,
  seed: 0n,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
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

/** From the `LLM` to its engine. */
export type EngineCommand =
  | EngineRequest
  /** Drop a request, or one of its samples. */
  | { readonly type: 'abort'; readonly requestId: number; readonly index?: number | undefined }
  /** A sample is complete: its text has come to a stop string. */
  | { readonly type: 'finish'; readonly requestId: number; readonly index: number };

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

/** An error as plain data. */
export interface ErrorInfo {
  readonly code: NdsErrorCode;
  readonly message: string;
  readonly cause?: ErrorInfo;
}

/** Running totals of an engine since it was loaded, and where its requests and blocks are now. */
export interface EngineStats extends MetricsSnapshot {
  readonly numPreemptions: number;
  /** Prompt tokens that were looked up in the prefix cache when their sequences were first let in, and those that were found there. */
  readonly numPrefixQueryTokens: number;
  readonly numPrefixHitTokens: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly numFreeBlocks: number;
  /** Blocks that the prefix cache can find again, and how many it gave up for their room. */
  readonly numCachedBlocks: number;
  readonly numEvictions: number;
  readonly numBlocks: number;
  /** Blocks of the draft model's cache that nobody holds; it has as many as the model's. */
  readonly numFreeDraftBlocks: number;
  /** What became of drafts; null without speculation. */
  readonly speculation: SpeculationStats | null;
}

/** From the engine to its `LLM`. After a `finishReason` for each sample, a last piece of logits or an error, nothing more follows for a request. */
export type EngineEvent =
  | {
      readonly type: 'tokens';
      readonly requestId: number;
      /** Which of the request's samples. */
      readonly index: number;
      readonly tokenIds: readonly number[];
      /** `[tokenIds.length]`, where they are asked for. */
      readonly logprobs: readonly TokenLogprobs[] | null;
      readonly finishReason: FinishReason | null;
      /** The caller's stop token that ended the text. */
      readonly stopTokenId: number | null;
      /** Null without speculation, and for the first token. */
      readonly drafted: Drafted | null;
      /** Prompt tokens that the prefix cache had when the sample was first let in. */
      readonly numCachedTokens: number;
    }
  /** Of the next prompt tokens, from the second on. */
  | { readonly type: 'promptLogprobs'; readonly requestId: number; readonly logprobs: readonly TokenLogprobs[] }
  /** Rows `[numRows, vocabSize]` of raw logits, in the order of the prompt. */
  | { readonly type: 'logits'; readonly requestId: number; readonly logits: Float32Array; readonly finished: boolean }
  /** The request was refused. */
  | { readonly type: 'refused'; readonly requestId: number; readonly error: ErrorInfo }
  | { readonly type: 'stats'; readonly stats: EngineStats }
  /** The engine has failed: nothing that is in flight or comes later will be answered. */
  | { readonly type: 'failed'; readonly error: ErrorInfo };

/** An error as it travels. */
export function toErrorInfo(error: unknown): ErrorInfo {
  const { code, message, cause } = toNdsError(error);
  return { code, message, ...(cause instanceof NdsError && { cause: toErrorInfo(cause) }) };
}

/** The error again, with a stack of its own. */
export function fromErrorInfo({ code, message, cause }: ErrorInfo): NdsError {
  return new NdsError(code, message, cause && { cause: fromErrorInfo(cause) });
}
