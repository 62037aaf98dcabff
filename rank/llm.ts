/** The `LLM` class: a loaded model that generates text. */
import { NdsError, toNdsError, unexpected } from '../protocol/errors.ts';
import type { ShardReport } from '../protocol/messages.ts';
import { type RankEnv, readRankEnv } from '../protocol/rank-env.ts';
import type { ChatOptions } from './chat/chat-template.ts';
import type { ChatMessage } from './chat/messages.ts';
import { EngineClient, type RequestEvent } from './engine/engine-client.ts';
import type { EngineStats } from './engine/stats.ts';
import { follow } from './gang/follower.ts';
import { LLMTokenizer } from './llm-tokenizer.ts';
import { closeObservers } from './observe/observers.ts';
import { type OpenModel, openModel } from './open-model.ts';
import { OpenShare } from './open-share.ts';
import { checkOptions, type LLMOptions, type ResolvedOptions } from './options.ts';
import { checkEmbedOptions, type EmbeddingOutput, type EmbedOptions, embedAll } from './request/embedding.ts';
import { generateAll, type NewGeneration, streamOne } from './request/generation.ts';
import { ChatPrompt, checkTokenIds, type EncodedPrompt, encodePrompt, type Prompt, type TokenIds } from './request/prompt.ts';
import { checkGenerateOptions, checkRequestOptions, type GenerateOptions, type RequestOptions } from './request/request-options.ts';
import type { RequestOutput, StreamChunk } from './request/request-output.ts';
import { type ResolvedSamplingParams, resolveSamplingParams, type SamplingParams } from './request/sampling-params.ts';

/** Raw logits of a prompt. */
export interface Logits {
  /** `[numTokens, vocabSize]`, row-major: row i predicts the token after token i. */
  readonly data: Float32Array;
  readonly shape: readonly [numTokens: number, vocabSize: number];
}

/**
 * A model, loaded on every rank. Any number of calls may be in flight; they share each step.
 *
 * An open `LLM` does not keep the process alive; a call in flight does.
 */
export class LLM {
  /** The model's tokenizer and chat template, as prompts pass through them. */
  readonly tokenizer: LLMTokenizer;
  readonly #model: OpenModel;
  readonly #client: EngineClient;
  readonly #share: OpenShare;
  #closing: Promise<void> | null = null;

  /** @throws NdsError `ERR_USAGE` for a caller without types: only `load` makes one. */
  private constructor(model: OpenModel, share: OpenShare) {
    if (!(model?.client instanceof EngineClient)) {
      throw new NdsError('ERR_USAGE', 'Expected `await LLM.load(model)`, as loading takes time, but received `new LLM(…)`');
    }
    this.#model = model;
    this.#share = share;
    this.#client = model.client;
    this.tokenizer = new LLMTokenizer(model, () => this.#client.checkOpen());
  }

  /**
   * Loads a model of Hugging Face's layout: a folder, `ORG/NAME` or `ORG/NAME@REVISION` of the hub, which is downloaded
   * into Python's cache unless it is there, or a shipped model such as `nds:story-5m`.
   *
   * Under `ndsrun` this returns on rank 0 only; the processes of the other ranks end with rank 0's. On one rank several
   * may be open, which take turns on the process's threads; on more, one at a time.
   *
   * @throws NdsError `ERR_USAGE` for an option that is unknown or out of range, or for a second open `LLM` on several
   * ranks, on CUDA, or under `ndsrun --trace` or `--record`; for the model, `ERR_MODEL_NOT_FOUND`, `ERR_CONFIG`,
   * `ERR_UNSUPPORTED`, `ERR_CHECKPOINT`, `ERR_TENSOR` or `ERR_TOKENIZER`; for the machine, `ERR_SYSTEM` or
   * `ERR_NATIVE`; for another rank, `ERR_MISMATCH` or `ERR_PEER_LOST`.
   */
  static async load(model: string, options: LLMOptions = {}): Promise<LLM> {
    const env = readRankEnv();
    if (env !== null && env.rank > 0) return follow(env);
    if (typeof model !== 'string' || model === '') {
      throw unexpected('ERR_USAGE', 'a model folder, ORG/NAME of the hub or nds:story-5m', null, model);
    }
    const checked = checkOptions(options);
    if (env !== null) sayRestarted(env);
    const share = OpenShare.enter(env);
    try {
      return new LLM(await share.load(() => openModel(model, checked, env, share)), share);
    } catch (error) {
      share.leave();
      throw toNdsError(error);
    }
  }

  /** The resolved options. */
  get options(): ResolvedOptions {
    return this.#model.options;
  }

  /** Sampling defaults from the model's generation_config.json. */
  get defaultSamplingParams(): SamplingParams {
    return this.#model.samplingDefaults;
  }

  /** `[worldSize]` each rank's shard, in order of rank. */
  get shards(): readonly ShardReport[] {
    return this.#model.shards;
  }

  /** Tensors of the folder that are not part of the decoder, e.g. a vision tower, counted by prefix; not loaded. */
  get skippedTensors(): OpenModel['skipped'] {
    return this.#model.skipped;
  }

  /**
   * Matrices that the checkpoint stores as integers or 8-bit floats: how many stay so, by format, and which became bfloat16
   * and why. `null`
   * on CUDA and with another `quantization` than `none`.
   */
  get quantizedMatrices(): OpenModel['integers'] {
    return this.#model.integers;
  }

  /** Running totals since the load; up to about 20 ms stale while requests run and none ends. */
  stats(): EngineStats {
    return this.#client.stats;
  }

  /**
   * Generates from one prompt, or from several in one batch.
   *
   * @param params - for all prompts, or an array with one per prompt
   * @throws NdsError `ERR_REQUEST` naming a bad prompt or parameter (nothing is generated then); `ERR_ABORTED` when the
   * signal aborts; `ERR_CLOSED` after `close()`; else the failure that closed this `LLM`.
   */
  generate(prompt: Prompt, params?: SamplingParams, options?: GenerateOptions): Promise<RequestOutput>;
  generate(
    prompts: readonly Prompt[],
    params?: SamplingParams | readonly SamplingParams[],
    options?: GenerateOptions,
  ): Promise<RequestOutput[]>;
  async generate(
    prompts: Prompt | readonly Prompt[],
    params?: SamplingParams | readonly SamplingParams[],
    options?: GenerateOptions,
  ): Promise<RequestOutput | RequestOutput[]> {
    this.#client.checkOpen();
    const checked = checkGenerateOptions(options);
    if (!isList(prompts)) {
      const [output] = await generateAll(this.#model, [[this.#encode(prompts), this.#resolve(params)]], checked);
      return output as RequestOutput;
    }
    if (isList(params) && params.length !== prompts.length) {
      throw new NdsError(
        'ERR_REQUEST',
        `Expected ${prompts.length} sampling parameters, one for each prompt, but received ${params.length}`,
      );
    }
    const paramsOf = (i: number) => this.#resolve(isList(params) ? params[i] : params);
    // `map` would skip holes.
    const requests = Array.from(prompts, (prompt, i): NewGeneration => [this.#encode(prompt), paramsOf(i)]);
    return generateAll(this.#model, requests, checked);
  }

  /** Streams the output of one prompt. Leaving the loop early aborts the request. @throws NdsError as `generate`. */
  async *stream(prompt: Prompt, params?: SamplingParams, options?: RequestOptions): AsyncGenerator<StreamChunk, void, undefined> {
    this.#client.checkOpen();
    const checked = checkRequestOptions(options);
    yield* streamOne(this.#model, [this.#encode(prompt), this.#resolve(params)], checked);
  }

  /**
   * Answers one conversation, or several in one batch: `generate` on prompts rendered by the model's chat template.
   *
   * @throws NdsError as `generate`; `ERR_REQUEST` for bad messages or options, `ERR_TOKENIZER` for a bad template.
   */
  chat(messages: readonly ChatMessage[], params?: SamplingParams, options?: ChatOptions & GenerateOptions): Promise<RequestOutput>;
  chat(
    conversations: readonly (readonly ChatMessage[])[],
    params?: SamplingParams | readonly SamplingParams[],
    options?: ChatOptions & GenerateOptions,
  ): Promise<RequestOutput[]>;
  async chat(
    messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    params?: SamplingParams | readonly SamplingParams[],
    options: ChatOptions & GenerateOptions = {},
  ): Promise<RequestOutput | RequestOutput[]> {
    const [template, request] = splitChatOptions(options);
    if (!isBatch(messages)) return this.generate(await this.#renderChat(messages, template), params as SamplingParams, request);
    return this.generate(await Promise.all(messages.map((one) => this.#renderChat(one, template))), params, request);
  }

  /** Streams the answer to one conversation. Leaving the loop early aborts the request. @throws NdsError as `chat`. */
  async *streamChat(
    messages: readonly ChatMessage[],
    params?: SamplingParams,
    options: ChatOptions & RequestOptions = {},
  ): AsyncGenerator<StreamChunk, void, undefined> {
    const [template, request] = splitChatOptions(options);
    yield* this.stream(await this.#renderChat(messages, template), params, request);
  }

  /** Raw logits of every prompt token. @throws NdsError as `generate`. */
  async computeLogits(promptTokenIds: TokenIds): Promise<Logits> {
    this.#client.checkOpen();
    const ids = checkTokenIds(promptTokenIds, this.#model.limits, 0);
    const { vocabSize } = this.#model.limits;
    const data = new Float32Array(ids.length * vocabSize);
    let end = 0;
    await new Promise<void>((resolve, reject) => {
      const onEvent = (event: RequestEvent) => {
        if (event.type !== 'rows') return;
        data.set(event.rows, end);
        end += event.rows.length;
        if (event.finished) resolve();
      };
      this.#client.submit({ type: 'logits', promptTokenIds: ids, priority: 0 }, { onEvent, onError: reject });
    });
    return { data, shape: [ids.length, vocabSize] };
  }

  /**
   * Embeds one prompt, or several in one batch: the hidden state after the final norm, of the last token or the mean of
   * all. CPU only. It takes nothing from the prefix cache.
   *
   * @throws NdsError as `generate`; `ERR_UNSUPPORTED` on CUDA.
   */
  embed(prompt: Prompt, options?: EmbedOptions): Promise<EmbeddingOutput>;
  embed(prompts: readonly Prompt[], options?: EmbedOptions): Promise<EmbeddingOutput[]>;
  async embed(prompts: Prompt | readonly Prompt[], options?: EmbedOptions): Promise<EmbeddingOutput | EmbeddingOutput[]> {
    this.#client.checkOpen();
    if (this.options.device === 'cuda') {
      throw new NdsError('ERR_UNSUPPORTED', "Expected device 'cpu' for embed(), which has no CUDA kernels yet, but received 'cuda'");
    }
    const checked = checkEmbedOptions(options);
    if (isList(prompts)) return embedAll(this.#model, prompts, checked);
    const [output] = await embedAll(this.#model, [prompts], checked);
    return output as EmbeddingOutput;
  }

  /** Rejects calls in flight with `ERR_CLOSED` and frees the model on every rank. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await Promise.all([this.#client.close(), this.#model.chatTemplate.close(), this.#model.tokenizer?.close()]);
      await this.#model.gang.unload();
    } finally {
      closeObservers(this.#model.observers);
      this.#share.leave();
    }
  }

  /** A promise for a long text. One that nobody awaits, as another prompt is refused, rejects unheard. */
  #encode(prompt: Prompt): EncodedPrompt | Promise<EncodedPrompt> {
    const encoded = encodePrompt(prompt, this.#model.tokenizer, this.#model.limits);
    if (encoded instanceof Promise) encoded.catch(() => {});
    return encoded;
  }

  #resolve(params: unknown): ResolvedSamplingParams {
    return resolveSamplingParams(params, this.#model.samplingDefaults);
  }

  async #renderChat(messages: readonly ChatMessage[], options?: ChatOptions): Promise<ChatPrompt> {
    this.#client.checkOpen();
    const { chatTemplate, tokenizer, limits } = this.#model;
    return ChatPrompt.encode(await chatTemplate.render(messages, options), tokenizer, limits);
  }
}

let hasSaidRestarted = false;

/** Tells once that rank 0 was lost: nothing of the script's run before goes on. */
function sayRestarted({ restartCount, maxRestarts }: RankEnv): void {
  if (restartCount === 0 || hasSaidRestarted) return;
  hasSaidRestarted = true;
  process.stderr.write(`LLM: rank 0 was lost and this script was started again (restart ${restartCount} of ${maxRestarts})\n`);
}

function isList<T>(value: T | readonly T[]): value is readonly T[] {
  return Array.isArray(value);
}

/** Splits options into the template's and the request's. */
function splitChatOptions(options: ChatOptions & GenerateOptions): [ChatOptions, GenerateOptions] {
  if (typeof options !== 'object' || options === null) return [options, {}];
  const { signal, priority, onProgress, ...template } = options;
  return [template, onProgress === undefined ? { signal, priority } : { signal, priority, onProgress }];
}

/** Whether these are several conversations, not the messages of one. */
function isBatch(messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[]): messages is readonly (readonly ChatMessage[])[] {
  return Array.isArray(messages) && Array.isArray(messages[0]);
}
