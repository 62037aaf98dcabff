/** What a caller gets for a prompt, and the assembling of it from tokens as they come. */
import type { Detokenizer } from './detokenizer.ts';
import type { FinishReason } from './engine-messages.ts';
import { StopStrings } from './stop-strings.ts';

/** One continuation of a prompt. */
export interface CompletionOutput {
  readonly index: number;
  /** Empty for a model without a tokenizer. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly finishReason: FinishReason;
  /** The stop string that was found; null for an end-of-sequence token or when the length ran out. */
  readonly stopReason: string | null;
}

/** A prompt and its continuations. */
export class RequestOutput {
  /** Null when the prompt was given as token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
  /** The seed given, or the one drawn: with it the same request gives the same tokens again. */
  readonly seed: number | bigint;
  readonly outputs: readonly [CompletionOutput, ...CompletionOutput[]];

  constructor(prompt: string | null, promptTokenIds: readonly number[], seed: number | bigint, output: CompletionOutput) {
    this.prompt = prompt;
    this.promptTokenIds = promptTokenIds;
    this.seed = seed;
    this.outputs = [output];
  }

  /** Text of the first output. */
  get text(): string {
    return this.outputs[0].text;
  }

  /** Tokens of the first output. */
  get tokenIds(): readonly number[] {
    return this.outputs[0].tokenIds;
  }
}

/** One piece of a streamed output. */
export interface StreamChunk {
  readonly index: number;
  /** Text since the piece before. It lags behind the tokens while it may be the start of a stop string or half a character. */
  readonly text: string;
  /** Tokens since the piece before. */
  readonly tokenIds: readonly number[];
  readonly seed: number | bigint;
  readonly finished: boolean;
  readonly finishReason: FinishReason | null;
  readonly stopReason: string | null;
}

/** What some tokens lead to. */
export type TextUpdate = Pick<StreamChunk, 'text' | 'finishReason' | 'stopReason'>;

/** How text is made of tokens. */
export interface TextOptions {
  /** Whether a stop string that was found is part of the text. Default false. */
  readonly includeStopStrInOutput?: boolean | undefined;
  /**
   * Tokens before stop strings are looked for. What these spell is never part of one: a stop string has to lie wholly in the
   * text after them, so that it does not depend on how tokens came together. A character that they only begin lies after them.
   * Default 0.
   */
  readonly minTokens?: number | undefined;
}

/** Turns the tokens of one request into text, and ends it where a stop string begins, or ends. */
export class TextAssembler {
  readonly #detokenizer: Detokenizer | null;
  readonly #stopStrings: StopStrings;
  /** Tokens to come before stop strings are looked for. */
  #numFree: number;

  /** Without a detokenizer there is no text. */
  constructor(detokenizer: Detokenizer | null, stop: readonly string[], options: TextOptions = {}) {
    this.#detokenizer = detokenizer;
    this.#stopStrings = new StopStrings(stop, options.includeStopStrInOutput);
    this.#numFree = options.minTokens ?? 0;
  }

  /** Takes tokens and whether they are the last; a stop string may end the text before that. */
  push(tokenIds: readonly number[], finishReason: FinishReason | null): TextUpdate {
    if (this.#detokenizer === null) return { text: '', finishReason, stopReason: null };
    const free = this.#detokenizer.push(tokenIds.slice(0, this.#numFree));
    const watched = this.#detokenizer.push(tokenIds.slice(this.#numFree)) + (finishReason === null ? '' : this.#detokenizer.finish());
    this.#numFree = Math.max(0, this.#numFree - tokenIds.length);
    const { text, stop } = this.#stopStrings.push(watched);
    if (stop !== null) return { text: free + text, finishReason: 'stop', stopReason: stop };
    const rest = finishReason === null ? '' : this.#stopStrings.finish();
    return { text: free + text + rest, finishReason, stopReason: null };
  }
}
