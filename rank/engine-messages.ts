/** What an `LLM` and its engine say to each other: structured-clonable values only, so that the engine can move to another thread. */
import { NdsError, type NdsErrorCode, toNdsError } from '../protocol/errors.ts';
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
  readonly sampleIndex: number;
}

/** Continue a prompt. */
export interface GenerateRequest {
  readonly type: 'generate';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
  readonly maxTokens: number;
  /** Tokens that end the text; empty with `ignoreEos`. */
  readonly eosTokenIds: readonly number[];
  readonly params: SlotParams;
}

/** Hand back the logits of every token of a prompt. */
export interface LogitsRequest {
  readonly type: 'logits';
  readonly requestId: number;
  readonly promptTokenIds: readonly number[];
}

export type EngineRequest = GenerateRequest | LogitsRequest;

/** From the `LLM` to its engine. */
export type EngineCommand = EngineRequest | { readonly type: 'abort'; readonly requestId: number };

/** `stop` = an end-of-sequence token or a stop string, `length` = `maxTokens` or the model's context is used up. */
export type FinishReason = 'stop' | 'length';

/** An error as plain data. */
export interface ErrorInfo {
  readonly code: NdsErrorCode;
  readonly message: string;
  readonly cause?: ErrorInfo;
}

/** Running totals of an engine since it was loaded, and where its requests and blocks are now. */
export interface EngineStats extends MetricsSnapshot {
  readonly numPreemptions: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly numFreeBlocks: number;
  readonly numBlocks: number;
}

/** From the engine to its `LLM`. After `finishReason`, a last piece of logits or an error, nothing more follows for a request. */
export type EngineEvent =
  | {
      readonly type: 'tokens';
      readonly requestId: number;
      readonly tokenIds: readonly number[];
      readonly finishReason: FinishReason | null;
    }
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
