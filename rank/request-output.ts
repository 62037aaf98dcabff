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

/** Turns the tokens of one request into text, and ends it where a stop string begins. */
export class TextAssembler {
  readonly #detokenizer: Detokenizer | null;
  readonly #stopStrings: StopStrings;

  /** Without a detokenizer there is no text. */
  constructor(detokenizer: Detokenizer | null, stop: readonly string[]) {
    this.#detokenizer = detokenizer;
    this.#stopStrings = new StopStrings(stop);
  }

  /** Takes tokens and whether they are the last; a stop string may end the text before that. */
  push(tokenIds: readonly number[], finishReason: FinishReason | null): TextUpdate {
    if (this.#detokenizer === null) return { text: '', finishReason, stopReason: null };
    const decoded = this.#detokenizer.push(tokenIds) + (finishReason === null ? '' : this.#detokenizer.finish());
    const { text, stop } = this.#stopStrings.push(decoded);
    if (stop !== null) return { text, finishReason: 'stop', stopReason: stop };
    return { text: finishReason === null ? text : text + this.#stopStrings.finish(), finishReason, stopReason: null };
  }
}
