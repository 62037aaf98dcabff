/** What an `LLM` and its engine say to each other: structured-clonable values only, so that the engine can move to another thread. */
import { NdsError, type NdsErrorCode, toNdsError } from '../../protocol/errors.ts';
import type { Drafted, EngineRequest, FinishReason, TokenLogprobs } from '../scheduler/request.ts';
import type { EngineStats } from './stats.ts';

/** From the `LLM` to its engine. */
export type EngineCommand =
  | EngineRequest
  /** Drop a request, or one of its samples. */
  | { readonly type: 'abort'; readonly requestId: number; readonly index?: number | undefined }
  /** A sample is complete: its text has come to a stop string. */
  | { readonly type: 'finish'; readonly requestId: number; readonly index: number };

/** An error as plain data. */
export interface ErrorInfo {
  readonly code: NdsErrorCode;
  readonly message: string;
  readonly cause?: ErrorInfo;
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
