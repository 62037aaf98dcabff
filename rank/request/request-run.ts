/** A request in flight: turns the engine's tokens into text chunks for each sample. */
import { NdsError } from '../../protocol/errors.ts';
import { pickSlotFloats } from '../../protocol/step-plan.ts';
import type { EngineClient, RequestEvent } from '../engine/engine-client.ts';
import type { SlotParams, TokenLogprobs } from '../scheduler/request.ts';
import { missingTokenizerError, type Tokenizer } from '../text/tokenizer.ts';
import type { EncodedPrompt, PromptLimits } from './prompt.ts';
import { type PositionLogprobs, type StreamChunk, TextAssembler, toPositionLogprobs } from './request-output.ts';
import type { ResolvedSamplingParams } from './sampling-params.ts';
import { badWordTokens, checkAgainstModel } from './token-rules.ts';

/** The parts of a loaded model that requests need. */
export interface ServingModel {
  readonly client: EngineClient;
  /** Undefined for a model without tokenizer.json, which takes and gives token ids only. */
  readonly tokenizer: Tokenizer | undefined;
  readonly limits: PromptLimits;
  readonly hiddenSize: number;
  /** Token ids below this can be drawn; the rest of the vocabulary is padding. */
  readonly sampleVocabSize: number;
  readonly eosTokenIds: readonly number[];
}

/** Receives a request's chunks. Nothing follows an error or a chunk that is `finished`. */
export interface RequestListener {
  onChunk(chunk: StreamChunk): void;
  onError(error: NdsError): void;
}

/** Sampling parameters as native takes them. @throws NdsError `ERR_REQUEST` for tokens that the model does not have. */
function toSlotParams(params: ResolvedSamplingParams, { tokenizer, limits, sampleVocabSize, eosTokenIds }: ServingModel): SlotParams {
  if (params.badWords.length > 0 && tokenizer === undefined) throw missingTokenizerError(limits.modelPath);
  const badWords = badWordTokens(params.badWords, (word) => (tokenizer as Tokenizer).encode(word, { addSpecialTokens: false }));
  checkAgainstModel(params, { vocabSize: sampleVocabSize, eosTokenIds: params.ignoreEos ? [] : eosTokenIds, badWords });
  const { topK, minTokens, logitBias, allowedTokenIds } = params;
  return {
    ...pickSlotFloats(params),
    ...{ topK, minTokens, logitBias, allowedTokenIds, badWords },
    seed: BigInt(params.seed),
    numLogprobs: params.logprobs,
    numPromptLogprobs: params.promptLogprobs,
  };
}

/** Runs one request from its submission to its end. */
export class RequestRun {
  readonly prompt: EncodedPrompt;
  readonly params: ResolvedSamplingParams;
  /** Log-probabilities of the prompt so far, null for its first token; null when not requested. */
  readonly promptLogprobs: (PositionLogprobs | null)[] | null;
  /** Prompt tokens of the first sample taken from the prefix cache. */
  numCachedTokens = 0;
  readonly #model: ServingModel;
  readonly #priority: number;
  readonly #listener: RequestListener;
  readonly #slotParams: SlotParams;
  readonly #assemblers: readonly TextAssembler[];
  #numOpen: number;
  #hasReported = false;
  #requestId: number | null = null;

  /** @throws NdsError `ERR_REQUEST` for parameters that the model cannot serve, e.g. `stop` without a tokenizer. */
  constructor(model: ServingModel, prompt: EncodedPrompt, params: ResolvedSamplingParams, priority: number, listener: RequestListener) {
    const { tokenizer } = model;
    if (params.stop.length > 0 && tokenizer === undefined)
      throw new NdsError('ERR_REQUEST', 'Expected no stop strings for a model without a tokenizer');
    this.prompt = prompt;
    this.params = params;
    this.#model = model;
    this.#priority = priority;
    this.#listener = listener;
    this.#numOpen = params.n;
    this.promptLogprobs = params.promptLogprobs === null ? null : [null];
    this.#slotParams = toSlotParams(params, model);
    const { skipSpecialTokens } = params;
    const newDetokenizer = () => tokenizer?.detokenizer(prompt.promptTokenIds, { skipSpecialTokens }) ?? null;
    const newMarked = () => tokenizer?.markedDetokenizer(prompt.promptTokenIds, { skipSpecialTokens }) ?? null;
    const newAssembler = () => new TextAssembler(newDetokenizer(), params.stop, params, newMarked());
    this.#assemblers = Array.from({ length: params.n }, newAssembler);
  }

  /** Submits the request to the engine. */
  start(): void {
    const { n, maxTokens, ignoreEos, stopTokenIds } = this.params;
    const request = {
      type: 'generate',
      promptTokenIds: this.prompt.promptTokenIds,
      n,
      maxTokens,
      eosTokenIds: ignoreEos ? [] : this.#model.eosTokenIds,
      stopTokenIds,
      priority: this.#priority,
      params: this.#slotParams,
    } as const;
    this.#requestId = this.#model.client.submit(request, {
      onEvent: (event) => this.#onEvent(event),
      onError: (error) => this.#listener.onError(error),
    });
  }

  /** Aborts the request without a call to the listener. */
  cancel(): void {
    if (this.#requestId !== null) this.#model.client.abort(this.#requestId);
  }

  #onEvent(event: RequestEvent): void {
    const toPosition = (position: TokenLogprobs) => toPositionLogprobs(position, this.#model.tokenizer);
    if (event.type === 'promptLogprobs') this.promptLogprobs?.push(...event.logprobs.map(toPosition));
    if (event.type !== 'tokens') return;
    const { index, logprobs, drafted, finishReason, stopTokenId, numCachedTokens } = event;
    if (index === 0) this.numCachedTokens = numCachedTokens;
    const { numTokens, update } = (this.#assemblers[index] as TextAssembler).pushAll(event.tokenIds, finishReason, stopTokenId);
    // Tokens after a stop string are discarded.
    const tokenIds = event.tokenIds.slice(0, numTokens);
    const isOver = update.finishReason !== null;
    // Only this side finds stop strings: the engine does not know yet that the sample is done.
    if (isOver && finishReason === null) this.#model.client.finishSample(this.#requestId as number, index);
    if (isOver) this.#numOpen--;
    const promptLogprobs = this.#hasReported ? null : this.promptLogprobs;
    this.#hasReported = true;
    this.#listener.onChunk({
      index,
      tokenIds,
      logprobs: logprobs?.slice(0, numTokens).map(toPosition) ?? null,
      drafted,
      promptLogprobs,
      numCachedTokens,
      seed: this.params.seed,
      finished: this.#numOpen === 0,
      text: update.text,
      finishReason: update.finishReason,
      stopReason: update.stopReason,
    });
  }
}
