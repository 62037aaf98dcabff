/** The output of a request, and its assembly from tokens as they arrive. */
import type { Drafted, FinishReason, TokenLogprobs } from '../scheduler/request.ts';
import { SpeculationCounts, type SpeculationStats } from '../speculative/counts.ts';
import type { Detokenizer } from '../text/detokenizer.ts';
import type { MarkedDetokenizer } from '../text/marked-detokenizer.ts';
import { type StopResult, StopStrings } from '../text/stop-strings.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** A token's log-probability, before temperature, filters, penalties and biases. */
export interface Logprob {
  readonly tokenId: number;
  /** Natural logarithm of its probability. */
  readonly logprob: number;
  /** Rank among all tokens, 1 = likeliest. */
  readonly rank: number;
  /** Its text; null for a model without a tokenizer. */
  readonly token: string | null;
}

/** Log-probability of the text's token at one position, and those of the likeliest tokens there. */
export interface PositionLogprobs extends Logprob {
  /** Likeliest first, as many as requested. */
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
  /** The stop string or stop token that ended the output; null for an end-of-sequence token or the max length. */
  readonly stopReason: string | number | null;
  /** Counts of drafted and accepted tokens; null without speculation. */
  readonly speculation: SpeculationStats | null;
}

/** A prompt and its continuations. */
export class RequestOutput {
  /** Null when the prompt was given as token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
  /** `[promptTokenIds.length]`, null for the first token; null unless `promptLogprobs` asks for them. */
  readonly promptLogprobs: readonly (PositionLogprobs | null)[] | null;
  /** Prompt tokens taken from the prefix cache instead of computed. */
  readonly numCachedTokens: number;
  /** Seed given or drawn; with it the same request yields the same tokens. */
  readonly seed: number | bigint;
  /** `[n]` */
  readonly outputs: readonly [CompletionOutput, ...CompletionOutput[]];

  constructor(fields: Pick<RequestOutput, 'prompt' | 'promptTokenIds' | 'promptLogprobs' | 'numCachedTokens' | 'seed' | 'outputs'>) {
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

  /** Why the first output ended. */
  get finishReason(): FinishReason {
    return this.outputs[0].finishReason;
  }

  get numPromptTokens(): number {
    return this.promptTokenIds.length;
  }

  /** Generated tokens of all outputs. */
  get numOutputTokens(): number {
    return this.outputs.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  }

  /** Every field and getter, for `JSON.stringify`. A seed given as a bigint is a string of digits. */
  toJSON() {
    const { text, finishReason, tokenIds, numPromptTokens, numOutputTokens } = this;
    const { prompt, promptTokenIds, promptLogprobs, numCachedTokens, outputs } = this;
    const seed = typeof this.seed === 'bigint' ? String(this.seed) : this.seed;
    const first = { prompt, text, finishReason, seed, numPromptTokens, numCachedTokens, numOutputTokens };
    return { ...first, promptTokenIds, tokenIds, promptLogprobs, outputs };
  }
}

/** One chunk of a streamed output. */
export interface StreamChunk {
  /** Which of the `n` outputs it continues. */
  readonly index: number;
  /** Text since the last chunk. It lags the tokens where it may begin a stop string or is part of a character. */
  readonly text: string;
  /** Tokens since the last chunk. */
  readonly tokenIds: readonly number[];
  /** `[tokenIds.length]`; null unless `logprobs` asks for them. */
  readonly logprobs: readonly PositionLogprobs[] | null;
  /**
   * Drafts of the step that made this chunk, whose tokens but the last were drafts; null without speculation, and where
   * the step did not decode.
   */
  readonly drafted: Drafted | null;
  /** `[promptTokenIds.length]` in the request's first chunk where `promptLogprobs` asks for them, else null. */
  readonly promptLogprobs: readonly (PositionLogprobs | null)[] | null;
  /** Prompt tokens of this output taken from the prefix cache or another output instead of computed. */
  readonly numCachedTokens: number;
  readonly seed: number | bigint;
  /** Whether this is the last chunk of the last output. */
  readonly finished: boolean;
  /** Of this output; null while it goes on. */
  readonly finishReason: FinishReason | null;
  readonly stopReason: string | number | null;
}

/** Text and finish state that new tokens yield. */
export type TextUpdate = Pick<StreamChunk, 'text' | 'finishReason' | 'stopReason'>;

/** Options of `TextAssembler`. */
export interface TextOptions {
  /** Whether the stop string or token that ends the text is part of it. Default false. */
  readonly includeStopStrInOutput?: boolean | undefined;
  /**
   * Tokens before stop strings are searched for. A stop string must lie wholly in the text after them, so that it does
   * not depend on how tokens were grouped. A character that they only begin counts as after them. Default 0.
   */
  readonly minTokens?: number | undefined;
}

/** Detokenizes one output and cuts it at a stop string: before it or, with `includeStopStrInOutput`, after it. */
export class TextAssembler {
  readonly #detokenizer: Detokenizer | null;
  readonly #marked: MarkedDetokenizer | null;
  readonly #looksForStops: boolean;
  readonly #stopStrings: StopStrings;
  readonly #includeStop: boolean;
  /** Tokens left before stop strings are searched for. */
  #numFree: number;

  /**
   * @param detokenizer - null yields no text
   * @param marked - the text with special tokens, in which stop strings are found too; null where none is hidden
   */
  constructor(
    detokenizer: Detokenizer | null,
    stop: readonly string[],
    options: TextOptions = {},
    marked: MarkedDetokenizer | null = null,
  ) {
    this.#detokenizer = detokenizer;
    this.#marked = stop.length > 0 ? marked : null;
    this.#includeStop = options.includeStopStrInOutput ?? false;
    this.#looksForStops = stop.length > 0;
    this.#stopStrings = new StopStrings(stop, this.#includeStop);
    this.#numFree = options.minTokens ?? 0;
  }

  /**
   * Takes tokens one by one, with the finish reason of the last. A stop string may end the text earlier: `numTokens` of
   * them count.
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

  /** The same for tokens that all count, even past a stop string. */
  push(tokenIds: readonly number[], finishReason: FinishReason | null, stopTokenId: number | null = null): TextUpdate {
    if (this.#detokenizer === null) return { text: '', finishReason, stopReason: stopTokenId };
    // The token that ends the text is not part of it.
    const shown = finishReason === 'stop' && !this.#includeStop ? tokenIds.slice(0, -1) : tokenIds;
    const watched = shown.slice(this.#numFree);
    let text = this.#pushFree(shown.slice(0, this.#numFree));
    this.#numFree = Math.max(0, this.#numFree - tokenIds.length);
    // One by one where hidden tokens count, since their order with the text before them does.
    const groups = this.#marked === null ? [watched] : watched.map((tokenId) => [tokenId]);
    if (groups.length === 0) groups.push([]);
    for (const [i, group] of groups.entries()) {
      const { text: more, stop } = this.#pushWatched(group, i === groups.length - 1 && finishReason !== null);
      text += more;
      if (stop !== null) return { text, finishReason: 'stop', stopReason: stop };
    }
    const held = finishReason === null ? '' : this.#stopStrings.finish();
    return { text: text + held, finishReason, stopReason: stopTokenId };
  }

  /** Text of tokens in which stop strings are not searched for. */
  #pushFree(tokenIds: readonly number[]): string {
    this.#marked?.push(tokenIds);
    return this.#detokenizer?.push(tokenIds) ?? '';
  }

  #pushWatched(tokenIds: readonly number[], isEnd: boolean): StopResult {
    const detokenizer = this.#detokenizer as Detokenizer;
    const piece = detokenizer.push(tokenIds) + (isEnd ? detokenizer.finish() : '');
    const marked = this.#marked === null ? [] : [...this.#marked.push(tokenIds), ...(isEnd ? this.#marked.finish() : [])];
    return this.#stopStrings.push(piece, marked, () => detokenizer.finish());
  }
}

/** Accumulates the chunks of one output. */
export class CompletionBuilder {
  #text = '';
  readonly #tokenIds: number[] = [];
  #logprobs: PositionLogprobs[] | null = null;
  #output: CompletionOutput | null = null;

  readonly #counts = new SpeculationCounts();
  #hasCounts = false;

  /** The complete output; null until it finishes. */
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

/** The engine's log-probabilities of one position in the form that callers get. */
export function toPositionLogprobs({ tokenIds, logprobs, rank }: TokenLogprobs, tokenizer: Tokenizer | undefined): PositionLogprobs {
  const entry = (i: number, place: number): Logprob => {
    const tokenId = tokenIds[i] as number;
    return { tokenId, logprob: logprobs[i] as number, rank: place, token: tokenizer?.tokenText(tokenId) ?? null };
  };
  return { ...entry(0, rank), top: tokenIds.slice(1).map((_, i) => entry(i + 1, i + 1)) };
}
