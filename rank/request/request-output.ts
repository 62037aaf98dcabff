/** What a caller gets for a prompt, and the assembling of it from tokens as they come. */
import type { Drafted, FinishReason, TokenLogprobs } from '../scheduler/request.ts';
import { SpeculationCounts, type SpeculationStats } from '../speculative/counts.ts';
import type { Detokenizer } from '../text/detokenizer.ts';
import { StopStrings } from '../text/stop-strings.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

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
  /** What became of drafts; null without speculation. */
  readonly speculation: SpeculationStats | null;
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
  /** What the step behind the piece drafted; null without speculation, and where it did not decode. All its tokens but the last were drafts. */
  readonly drafted: Drafted | null;
  /** `[promptTokenIds.length]` with the request's first piece, where `promptLogprobs` asks for them; null with all others. */
  readonly promptLogprobs: readonly (PositionLogprobs | null)[] | null;
  /** Prompt tokens that were not computed for this output, since the prefix cache or another output had them. */
  readonly numCachedTokens: number;
  readonly seed: number | bigint;
  /** Whether this was the last piece of the last output. */
  readonly finished: boolean;
  /** Of this output; null while it goes on. */
  readonly finishReason: FinishReason | null;
  readonly stopReason: string | number | null;
}

/** What some tokens lead to. */
export type TextUpdate = Pick<StreamChunk, 'text' | 'finishReason' | 'stopReason'>;

/** How text is made of tokens. */
export interface TextOptions {
  /** Whether the stop string or token that ends the text is part of it. Default false. */
  readonly includeStopStrInOutput?: boolean | undefined;
  /**
   * Tokens before stop strings are looked for. What these spell is never part of one: a stop string has to lie wholly in the
   * text after them, so that it does not depend on how tokens came together. A character that they only begin lies after them.
   * Default 0.
   */
  readonly minTokens?: number | undefined;
}

/** Turns the tokens of one output into text, and ends it where a stop string begins, or ends. */
export class TextAssembler {
  readonly #detokenizer: Detokenizer | null;
  readonly #looksForStops: boolean;
  readonly #stopStrings: StopStrings;
  readonly #includeStop: boolean;
  /** Tokens to come before stop strings are looked for. */
  #numFree: number;

  /** Without a detokenizer there is no text. */
  constructor(detokenizer: Detokenizer | null, stop: readonly string[], options: TextOptions = {}) {
    this.#detokenizer = detokenizer;
    this.#includeStop = options.includeStopStrInOutput ?? false;
    this.#looksForStops = stop.length > 0;
    this.#stopStrings = new StopStrings(stop, this.#includeStop);
    this.#numFree = options.minTokens ?? 0;
  }

  /**
   * Takes tokens one by one, and whether they are the last; a stop string may end the text before that, and says how many count.
   * @param stopTokenId - the caller's stop token, where the last token is one
   */
  pushAll(
    tokenIds: readonly number[],
    finishReason: FinishReason | null,
    stopTokenId: number | null,
  ): { readonly numTokens: number; readonly update: TextUpdate } {
    if (!this.#looksForStops) return { numTokens: tokenIds.length, update: this.push(tokenIds, finishReason, stopTokenId) };
    let text = '';
    for (let i = 0; ; i++) {
      const isLast = i >= tokenIds.length - 1;
      const update = this.push(tokenIds.slice(i, i + 1), isLast ? finishReason : null, isLast ? stopTokenId : null);
      text += update.text;
      if (isLast || update.finishReason !== null) return { numTokens: Math.min(i + 1, tokenIds.length), update: { ...update, text } };
    }
  }

  /** The same for tokens that all count, whatever they spell. */
  push(tokenIds: readonly number[], finishReason: FinishReason | null, stopTokenId: number | null = null): TextUpdate {
    if (this.#detokenizer === null) return { text: '', finishReason, stopReason: stopTokenId };
    // A token that ends the text is no part of it.
    const shown = finishReason === 'stop' && !this.#includeStop ? tokenIds.slice(0, -1) : tokenIds;
    const free = this.#numFree > 0 ? this.#detokenizer.push(shown.slice(0, this.#numFree)) : '';
    const rest = this.#numFree > 0 ? shown.slice(this.#numFree) : shown;
    const watched = this.#detokenizer.push(rest) + (finishReason === null ? '' : this.#detokenizer.finish());
    this.#numFree = Math.max(0, this.#numFree - tokenIds.length);
    const { text, stop } = this.#stopStrings.push(watched);
    if (stop !== null) return { text: free + text, finishReason: 'stop', stopReason: stop };
    const held = finishReason === null ? '' : this.#stopStrings.finish();
    return { text: free + text + held, finishReason, stopReason: stopTokenId };
  }
}

/** Puts the pieces of one output together. */
export class CompletionBuilder {
  #text = '';
  readonly #tokenIds: number[] = [];
  #logprobs: PositionLogprobs[] | null = null;
  #output: CompletionOutput | null = null;

  readonly #counts = new SpeculationCounts();
  #hasCounts = false;

  /** The whole output; null while it goes on. */
  get output(): CompletionOutput | null {
    return this.#output;
  }

  push(chunk: Omit<StreamChunk, 'promptLogprobs' | 'numCachedTokens'>): void {
    const { index, text, tokenIds, logprobs, drafted, finishReason, stopReason } = chunk;
    if (drafted !== null) {
      this.#hasCounts = true;
      this.#counts.add(drafted.numDrafts, drafted.numAccepted);
    }
    this.#text += text;
    this.#tokenIds.push(...tokenIds);
    if (logprobs !== null) {
      this.#logprobs ??= [];
      this.#logprobs.push(...logprobs);
    }
    if (finishReason === null) return;
    const cumulativeLogprob = this.#logprobs?.reduce((sum, { logprob }) => sum + logprob, 0) ?? null;
    const whole = { text: this.#text, tokenIds: this.#tokenIds, logprobs: this.#logprobs, cumulativeLogprob };
    const speculation = this.#hasCounts ? this.#counts.snapshot : null;
    this.#output = { index, ...whole, finishReason, stopReason, speculation };
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
