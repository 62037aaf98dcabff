/** Messages between an `LLM` and its engine. Structured-clonable, so that the engine can move to another thread. */
import { NdsError, type NdsErrorCode, toNdsError } from '../../protocol/errors.ts';
import type { Drafted, EngineRequest, FinishReason, TokenLogprobs } from '../scheduler/request.ts';
import type { EngineStats } from './stats.ts';

/** From the `LLM` to its engine. */
export type EngineCommand =
  | EngineRequest
  /** Aborts a request, or one of its samples. */
  | { readonly type: 'abort'; readonly requestId: number; readonly index?: number | undefined }
  /** Finishes a sample: its text reached a stop string. */
  | { readonly type: 'finish'; readonly requestId: number; readonly index: number }
  /** Answers `lost`: every unfinished request follows, in order of arrival. The engine drops requests between the two. */
  | { readonly type: 'resubmit'; readonly numLosses: number };

/** An error as plain data. */
export interface ErrorInfo {
  readonly code: NdsErrorCode;
  readonly message: string;
  readonly cause?: ErrorInfo;
}

/** From the engine to its `LLM`. A request ends with a `finishReason` per sample, `finished` rows or an error. */
export type EngineEvent =
  | {
      readonly type: 'tokens';
      readonly requestId: number;
      /** Index of the sample. */
      readonly index: number;
      readonly tokenIds: readonly number[];
      /** `[tokenIds.length]`; null unless requested. */
      readonly logprobs: readonly TokenLogprobs[] | null;
      readonly finishReason: FinishReason | null;
      /** The caller's stop token that ended the text. */
      readonly stopTokenId: number | null;
      /** Null without speculation, and where the sequence did not decode. */
      readonly drafted: Drafted | null;
      /** Prompt tokens found cached at the sample's first admission. */
      readonly numCachedTokens: number;
    }
  /** Log-probabilities of the next prompt tokens, from the second on. */
  | { readonly type: 'promptLogprobs'; readonly requestId: number; readonly logprobs: readonly TokenLogprobs[] }
  /** `[numRows, vocabSize]` raw logits or `[numRows, hiddenSize]` hidden states, in prompt order. */
  | {
      readonly type: 'rows';
      readonly requestId: number;
      readonly rows: Float32Array;
      readonly numRows: number;
      readonly finished: boolean;
    }
  | { readonly type: 'refused'; readonly requestId: number; readonly error: ErrorInfo }
  | { readonly type: 'stats'; readonly stats: EngineStats }
  /** A rank was lost, and with it all that the engine held: `resubmit` is expected. Requests wait for other ranks. */
  | { readonly type: 'lost'; readonly numLosses: number }
  /** Requests run again. */
  | { readonly type: 'resumed' }
  /** The engine failed: requests in flight and later ones get no answer. */
  | { readonly type: 'failed'; readonly error: ErrorInfo };

/** Flattens an error, its causes included. */
export function toErrorInfo(error: unknown): ErrorInfo {
  const { code, message, cause } = toNdsError(error);
  return { code, message, ...(cause instanceof NdsError && { cause: toErrorInfo(cause) }) };
}

/** Rebuilds an error, with a new stack. */
export function fromErrorInfo({ code, message, cause }: ErrorInfo): NdsError {
  return new NdsError(code, message, cause && { cause: fromErrorInfo(cause) });
}
