/** A request on its way: the engine's tokens become pieces of text for each of its samples. */
import { NdsError } from '../protocol/errors.ts';
import { describe } from './describe.ts';
import type { RequestEvent } from './engine-client.ts';
import type { SlotParams, TokenLogprobs } from './engine-messages.ts';
import type { OpenModel } from './open-model.ts';
import type { EncodedPrompt } from './prompt.ts';
import { type StreamChunk, TextAssembler, toPositionLogprobs } from './request-output.ts';
import type { ResolvedSamplingParams } from './sampling-params.ts';
import { badWordTokens, checkAgainstModel } from './token-rules.ts';
import { missingTokenizerError, type Tokenizer } from './tokenizer.ts';

/** What a call may say besides how to sample. */
export interface RequestOptions {
  /** Aborting it drops what is under way, whose blocks serve others at once, and rejects with `ERR_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
  /** Lower numbers are served first, where `schedulingPolicy` is `priority`. Default 0. */
  readonly priority?: number | undefined;
}

/** Who waits for a request. Nothing follows an error or a chunk that is `finished`. */
export interface RequestListener {
  onChunk(chunk: StreamChunk): void;
  onError(error: NdsError): void;
}

/** @throws NdsError `ERR_REQUEST` naming the option that is unknown or of a wrong type. */
export function checkRequestOptions(options: unknown = {}): RequestOptions {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new NdsError('ERR_REQUEST', `Expected an object of request options but received ${describe(options)}`);
  }
  const { signal, priority, ...others } = options as Record<string, unknown>;
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) throw new NdsError('ERR_REQUEST', `Expected request options signal or priority but received '${unknown}'`);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new NdsError('ERR_REQUEST', `Expected an AbortSignal for signal but received ${describe(signal)}`);
  if (priority !== undefined && !Number.isSafeInteger(priority))
    throw new NdsError('ERR_REQUEST', `Expected an integer for priority but received ${describe(priority)}`);
  return options;
}

/** What native needs to know of the sampling parameters. @throws NdsError `ERR_REQUEST` for tokens that the model does not have. */
function toSlotParams(params: ResolvedSamplingParams, { tokenizer, limits, sampleVocabSize, eosTokenIds }: OpenModel): SlotParams {
  if (params.badWords.length > 0 && tokenizer === undefined) throw missingTokenizerError(limits.modelPath);
  const badWords = badWordTokens(params.badWords, (word) => (tokenizer as Tokenizer).encode(word, { addSpecialTokens: false }));
  checkAgainstModel(params, { vocabSize: sampleVocabSize, eosTokenIds: params.ignoreEos ? [] : eosTokenIds, badWords });
  const { temperature, topP, minP, topK, presencePenalty, frequencyPenalty, repetitionPenalty } = params;
  const { minTokens, logitBias, allowedTokenIds } = params;
  return {
    ...{ temperature, topP, minP, topK, presencePenalty, frequencyPenalty, repetitionPenalty },
    ...{ minTokens, logitBias, allowedTokenIds, badWords },
    seed: BigInt(params.seed),
    numLogprobs: params.logprobs,
    numPromptLogprobs: params.promptLogprobs,
  };
}

/** Runs one request from its submission to its end. */
export class RequestRun {
  readonly prompt: EncodedPrompt;
  readonly params: ResolvedSamplingParams;
  /** Of the prompt tokens from the second on, as far as they have come. */
  readonly promptLogprobs: TokenLogprobs[] = [];
  /** Prompt tokens that the prefix cache had, for the first sample. */
  numCachedTokens = 0;
  readonly #model: OpenModel;
  readonly #options: RequestOptions;
  readonly #listener: RequestListener;
  readonly #slotParams: SlotParams;
  readonly #assemblers: readonly TextAssembler[];
  #numOpen: number;
  #requestId: number | null = null;

  constructor(model: OpenModel, prompt: EncodedPrompt, params: ResolvedSamplingParams, options: RequestOptions, listener: RequestListener) {
    const { tokenizer } = model;
    if (params.stop.length > 0 && tokenizer === undefined)
      throw new NdsError('ERR_REQUEST', 'Expected no stop strings for a model without a tokenizer');
    this.prompt = prompt;
    this.params = params;
    this.#model = model;
    this.#options = options;
    this.#listener = listener;
    this.#numOpen = params.n;
    this.#slotParams = toSlotParams(params, model);
    const { skipSpecialTokens } = params;
    const newDetokenizer = () => tokenizer?.detokenizer(prompt.promptTokenIds, { skipSpecialTokens }) ?? null;
    const newAssembler = () => new TextAssembler(newDetokenizer(), params.stop, params);
    this.#assemblers = Array.from({ length: params.n }, newAssembler);
  }

  /** Hands the request to the engine. */
  start(): void {
    const { signal, priority = 0 } = this.#options;
    if (signal?.aborted) return queueMicrotask(() => this.#onAbort());
    const { n, maxTokens, ignoreEos, stopTokenIds } = this.params;
    signal?.addEventListener('abort', this.#onAbort);
    const request = {
      type: 'generate',
      promptTokenIds: this.prompt.promptTokenIds,
      n,
      maxTokens,
      eosTokenIds: ignoreEos ? [] : this.#model.eosTokenIds,
      stopTokenIds,
      priority,
      params: this.#slotParams,
    } as const;
    this.#requestId = this.#model.client.submit(request, {
      onEvent: (event) => this.#onEvent(event),
      onError: (error) => this.#end(() => this.#listener.onError(error)),
    });
  }

  /** Drops what is still under way, without a word to the listener. */
  cancel(): void {
    if (this.#requestId !== null) this.#model.client.abort(this.#requestId);
    this.#end(() => {});
  }

  readonly #onAbort = (): void => {
    this.cancel();
    const cause = this.#options.signal?.reason;
    this.#listener.onError(new NdsError('ERR_ABORTED', 'Expected the request to finish but its signal aborted it', { cause }));
  };

  #end(report: () => void): void {
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    report();
  }

  #onEvent(event: RequestEvent): void {
    if (event.type === 'promptLogprobs') this.promptLogprobs.push(...event.logprobs);
    if (event.type !== 'tokens') return;
    const { index, tokenIds, logprobs, finishReason, stopTokenId, numCachedTokens } = event;
    if (index === 0) this.numCachedTokens = numCachedTokens;
    const update = (this.#assemblers[index] as TextAssembler).push(tokenIds, finishReason, stopTokenId);
    const isOver = update.finishReason !== null;
    // A stop string is found here: the engine does not know yet that the sample is done.
    if (isOver && finishReason === null) this.#model.client.abortSample(this.#requestId as number, index);
    if (isOver) this.#numOpen--;
    const finished = this.#numOpen === 0;
    const tokenizer = this.#model.tokenizer;
    const positions = logprobs?.map((position) => toPositionLogprobs(position, tokenizer)) ?? null;
    const chunk = { index, tokenIds, logprobs: positions, seed: this.params.seed, finished, ...update };
    if (finished) this.#end(() => this.#listener.onChunk(chunk));
    else this.#listener.onChunk(chunk);
  }
}
