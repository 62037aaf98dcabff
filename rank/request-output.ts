/** What a caller gets for a prompt, and the assembling of it from tokens as they come. */
import type { Detokenizer } from './detokenizer.ts';
import type { FinishReason, TokenLogprobs } from './engine-messages.ts';
import { StopStrings } from './stop-strings.ts';
import type { Tokenizer } from './tokenizer.ts';

/** One token and how likely it was: before temperature, filters, penalties and biases. */
export interface Logprob {
  readonly tokenId: number;
  /** Natural logarithm of its probability. */
  readonly logprob: number;
  /** Place among all tokens, from 1. */
  readonly rank: number;
  /** Its text; null for a model without a tokenizer. */
  readonly token: string | null;
}

/** The token of the text at one position, and the likeliest ones there. */
export interface PositionLogprobs extends Logprob {
  /** Best first, as many as were asked for. */
  readonly top: readonly Logprob[];
}

/** One continuation of a prompt. */
export interface CompletionOutput {
  readonly index: number;
  /** Empty for a model without a tokenizer. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]`; null unless `logprobs` asks for them. */
  readonly logprobs: readonly PositionLogprobs[] | null;
  /** Sum over `logprobs`. */
  readonly cumulativeLogprob: number | null;
  readonly finishReason: FinishReason;
  /** The stop string or the stop token that was found; null for an end-of-sequence token or when the length ran out. */
  readonly stopReason: string | number | null;
}

/** A prompt and its continuations. */
export class RequestOutput {
  /** Null when the prompt was given as token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
  /** `[promptTokenIds.length]`, null for the first token; null unless `promptLogprobs` asks for them. */
  readonly promptLogprobs: readonly (PositionLogprobs | null)[] | null;
  /** Prompt tokens that were not computed, since the prefix cache had them. */
  readonly numCachedTokens: number;
  /** The seed given, or the one drawn: with it the same request gives the same tokens again. */
  readonly seed: number | bigint;
  /** `[n]` */
  readonly outputs: readonly [CompletionOutput, ...CompletionOutput[]];

  constructor(fields: Omit<RequestOutput, 'text' | 'tokenIds'>) {
    this.prompt = fields.prompt;
    this.promptTokenIds = fields.promptTokenIds;
    this.promptLogprobs = fields.promptLogprobs;
    this.numCachedTokens = fields.numCachedTokens;
    this.seed = fields.seed;
    this.outputs = fields.outputs;
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
  /** Which of the `n` outputs it continues. */
  readonly index: number;
  /** Text since the piece before. It lags behind the tokens while it may be the start of a stop string or half a character. */
  readonly text: string;
  /** Tokens since the piece before. */
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]`; null unless `logprobs` asks for them. */
  readonly logprobs: readonly PositionLogprobs[] | null;
  readonly seed: number | bigint;
  /** Whether this was the last piece of the last output. */
  readonly finished: boolean;
  /** Of this output; null while it goes on. */
  readonly finishReason: FinishReason | null;
  readonly stopReason: string | number | null;
}

/** What some tokens lead to. */
export type TextUpdate = Pick<StreamChunk, 'text' | 'finishReason' | 'stopReason'>;

/** Turns the tokens of one output into text, and ends it where a stop string begins. */
export class TextAssembler {
  readonly #detokenizer: Detokenizer | null;
  readonly #stopStrings: StopStrings;

  /** Without a detokenizer there is no text. */
  constructor(detokenizer: Detokenizer | null, stop: readonly string[]) {
    this.#detokenizer = detokenizer;
    this.#stopStrings = new StopStrings(stop);
  }

  /** Takes tokens and whether they are the last; a stop string may end the text before that. */
  push(tokenIds: readonly number[], finishReason: FinishReason | null, stopTokenId: number | null = null): TextUpdate {
    if (this.#detokenizer === null) return { text: '', finishReason, stopReason: stopTokenId };
    const decoded = this.#detokenizer.push(tokenIds) + (finishReason === null ? '' : this.#detokenizer.finish());
    const { text, stop } = this.#stopStrings.push(decoded);
    if (stop !== null) return { text, finishReason: 'stop', stopReason: stop };
    return { text: finishReason === null ? text : text + this.#stopStrings.finish(), finishReason, stopReason: stopTokenId };
  }
}

/** Puts the pieces of one output together. */
export class CompletionBuilder {
  #text = '';
  readonly #tokenIds: number[] = [];
  #logprobs: PositionLogprobs[] | null = null;
  #output: CompletionOutput | null = null;

  /** The whole output; null while it goes on. */
  get output(): CompletionOutput | null {
    return this.#output;
  }

  push({ index, text, tokenIds, logprobs, finishReason, stopReason }: StreamChunk): void {
    this.#text += text;
    this.#tokenIds.push(...tokenIds);
    if (logprobs !== null) this.#logprobs = [...(this.#logprobs ?? []), ...logprobs];
    if (finishReason === null) return;
    const cumulativeLogprob = this.#logprobs?.reduce((sum, { logprob }) => sum + logprob, 0) ?? null;
    const whole = { text: this.#text, tokenIds: this.#tokenIds, logprobs: this.#logprobs, cumulativeLogprob };
    this.#output = { index, ...whole, finishReason, stopReason };
  }
}

/** The engine's numbers of one position, as callers get them. */
export function toPositionLogprobs({ tokenIds, logprobs, rank }: TokenLogprobs, tokenizer: Tokenizer | undefined): PositionLogprobs {
  const entry = (i: number, place: number): Logprob => {
    const tokenId = tokenIds[i] as number;
    return { tokenId, logprob: logprobs[i] as number, rank: place, token: tokenizer?.tokenText(tokenId) ?? null };
  };
  return { ...entry(0, rank), top: tokenIds.slice(1).map((_, i) => entry(i + 1, i + 1)) };
}
