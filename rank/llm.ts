/** What users hold: a loaded model that generates text. */
import { NdsError, toNdsError } from '../protocol/errors.ts';
import type { ShardReport } from '../protocol/messages.ts';
import { readRankEnv } from '../protocol/rank-env.ts';
import { AsyncQueue } from './async-queue.ts';
import type { EngineClient, RequestEvent } from './engine-client.ts';
import type { EngineStats } from './engine-messages.ts';
import { follow } from './follower.ts';
import { type OpenModel, openModel } from './open-model.ts';
import { checkOptions, type LLMOptions, type ResolvedOptions } from './options.ts';
import { checkTokenIds, type EncodedPrompt, encodePrompt, type Prompt, type TokenIds } from './prompt.ts';
import { RequestOutput, type StreamChunk, TextAssembler } from './request-output.ts';
import { describe, type ResolvedSamplingParams, resolveSamplingParams, type SamplingParams } from './sampling-params.ts';
import { closeWatch } from './watch.ts';

/** Raw logits of a prompt. */
export interface Logits {
  /** `[numTokens, vocabSize]`, row-major: row i is what the model expects after token i. */
  readonly data: Float32Array;
  readonly shape: readonly [numTokens: number, vocabSize: number];
}

/** One model at a time: ranks, memory and threads are the process's own. */
let isOneOpen = false;

/**
 * A model, loaded on every rank. Any number of calls may be under way at once; they share each step.
 *
 * An open `LLM` does not keep the process alive; a call under way does.
 */
export class LLM {
  readonly #model: OpenModel;
  readonly #client: EngineClient;
  #closing: Promise<void> | null = null;

  private constructor(model: OpenModel) {
    this.#model = model;
    this.#client = model.client;
  }

  /**
   * Loads a Hugging Face model folder.
   *
   * Under `ndsrun` this returns on rank 0 only: on the other ranks it never does, and their process ends with rank 0's.
   *
   * @throws NdsError `ERR_USAGE` for an option that is unknown or out of range, or while another `LLM` is open; else what
   * is wrong with the model (`ERR_MODEL_NOT_FOUND`, `ERR_CONFIG`, `ERR_UNSUPPORTED`, `ERR_CHECKPOINT`, `ERR_TENSOR`,
   * `ERR_TOKENIZER`), the machine (`ERR_SYSTEM`, `ERR_NATIVE`) or another rank (`ERR_MISMATCH`, `ERR_PEER_LOST`).
   */
  static async load(model: string, options: LLMOptions = {}): Promise<LLM> {
    const env = readRankEnv();
    if (env !== null && env.rank > 0) return follow(env);
    if (typeof model !== 'string' || model === '') {
      throw new NdsError('ERR_USAGE', `Expected the path of a model folder but received ${describe(model)}`);
    }
    const checked = checkOptions(options);
    if (isOneOpen) throw new NdsError('ERR_USAGE', 'Expected one open LLM at a time: close() the one before loading the next');
    isOneOpen = true;
    try {
      return new LLM(await openModel(model, checked, env));
    } catch (error) {
      isOneOpen = false;
      throw toNdsError(error);
    }
  }

  /** What the options came to. */
  get options(): ResolvedOptions {
    return this.#model.options;
  }

  /** What each rank holds, in order of rank. */
  get shards(): readonly ShardReport[] {
    return this.#model.shards;
  }

  /** Running totals since the model was loaded. */
  stats(): EngineStats {
    return this.#client.stats;
  }

  /**
   * Continues one prompt, or several in one batch.
   *
   * @param params - for all prompts, or an array with one for each
   * @throws NdsError `ERR_REQUEST` naming what is wrong with a prompt or parameter (nothing is generated then);
   * `ERR_CLOSED` after `close()`; else the failure that closed this `LLM`.
   */
  generate(prompt: Prompt, params?: SamplingParams): Promise<RequestOutput>;
  generate(prompts: readonly Prompt[], params?: SamplingParams | readonly SamplingParams[]): Promise<RequestOutput[]>;
  async generate(
    prompts: Prompt | readonly Prompt[],
    params?: SamplingParams | readonly SamplingParams[],
  ): Promise<RequestOutput | RequestOutput[]> {
    this.#client.checkOpen();
    if (!isList(prompts)) {
      const [output] = await this.#generateAll([[this.#encode(prompts), resolveSamplingParams(params)]]);
      return output as RequestOutput;
    }
    if (isList(params) && params.length !== prompts.length) {
      throw new NdsError(
        'ERR_REQUEST',
        `Expected ${prompts.length} sampling parameters, one for each prompt, but received ${params.length}`,
      );
    }
    const paramsOf = (i: number) => resolveSamplingParams(isList(params) ? params[i] : params);
    // Not map, which skips holes.
    return this.#generateAll(Array.from(prompts, (prompt, i) => [this.#encode(prompt), paramsOf(i)]));
  }

  /** Continues one prompt, piece by piece. Leaving the loop early drops the request. @throws NdsError as `generate`. */
  async *stream(prompt: Prompt, params?: SamplingParams): AsyncGenerator<StreamChunk, void, undefined> {
    this.#client.checkOpen();
    const chunks = new AsyncQueue<StreamChunk>();
    const onError = (error: NdsError) => chunks.fail(error);
    const requestId = this.#start(this.#encode(prompt), resolveSamplingParams(params), (chunk) => chunks.push(chunk), onError);
    try {
      for (let finished = false; !finished; ) {
        const chunk = await chunks.next();
        finished = chunk.finished;
        yield chunk;
      }
    } finally {
      this.#client.abort(requestId);
    }
  }

  /** Logits of every token of a prompt, before any sampling. @throws NdsError as `generate`. */
  async computeLogits(promptTokenIds: TokenIds): Promise<Logits> {
    this.#client.checkOpen();
    const ids = checkTokenIds(promptTokenIds, this.#model.limits, 0);
    const { vocabSize } = this.#model.limits;
    const data = new Float32Array(ids.length * vocabSize);
    let end = 0;
    await new Promise<void>((resolve, reject) => {
      const onEvent = (event: RequestEvent) => {
        if (event.type !== 'logits') return;
        data.set(event.logits, end);
        end += event.logits.length;
        if (event.finished) resolve();
      };
      this.#client.submit({ type: 'logits', promptTokenIds: ids }, { onEvent, onError: reject });
    });
    return { data, shape: [ids.length, vocabSize] };
  }

  /** Rejects what is under way with `ERR_CLOSED` and frees the model on every rank. Another may be loaded then. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.#client.close();
      await this.#model.gang.unload();
    } finally {
      closeWatch(this.#model.watch);
      isOneOpen = false;
    }
  }

  #encode(prompt: Prompt): EncodedPrompt {
    return encodePrompt(prompt, this.#model.tokenizer, this.#model.limits);
  }

  async #generateAll(requests: readonly (readonly [EncodedPrompt, ResolvedSamplingParams])[]): Promise<RequestOutput[]> {
    const requestIds: number[] = [];
    try {
      return await Promise.all(requests.map(([prompt, params]) => this.#generateOne(prompt, params, requestIds)));
    } finally {
      // When one is refused, the others of the same call have no one left to wait for them.
      for (const requestId of requestIds) this.#client.abort(requestId);
    }
  }

  #generateOne({ prompt, promptTokenIds }: EncodedPrompt, params: ResolvedSamplingParams, requestIds: number[]): Promise<RequestOutput> {
    return new Promise((resolve, reject) => {
      let text = '';
      const tokenIds: number[] = [];
      const onChunk = (chunk: StreamChunk) => {
        text += chunk.text;
        tokenIds.push(...chunk.tokenIds);
        const { index, finishReason, stopReason } = chunk;
        if (finishReason === null) return;
        resolve(new RequestOutput(prompt, promptTokenIds, params.seed, { index, text, tokenIds, finishReason, stopReason }));
      };
      requestIds.push(this.#start({ prompt, promptTokenIds }, params, onChunk, reject));
    });
  }

  /** Hands a request to the engine; `onChunk` gets its output until a chunk is `finished`. */
  #start(
    prompt: EncodedPrompt,
    params: ResolvedSamplingParams,
    onChunk: (chunk: StreamChunk) => void,
    onError: (error: NdsError) => void,
  ): number {
    const { tokenizer, eosTokenIds } = this.#model;
    const { promptTokenIds } = prompt;
    const { seed, stop, maxTokens, ignoreEos, ...filters } = params;
    if (stop.length > 0 && tokenizer === undefined)
      throw new NdsError('ERR_REQUEST', 'Expected no stop strings for a model without a tokenizer');
    const assembler = new TextAssembler(tokenizer?.detokenizer(promptTokenIds) ?? null, stop);
    const samplingParams = { ...filters, seed: BigInt(seed), sampleIndex: 0 };
    const request = {
      type: 'generate',
      promptTokenIds,
      maxTokens,
      eosTokenIds: ignoreEos ? [] : eosTokenIds,
      params: samplingParams,
    } as const;
    const onEvent = (event: RequestEvent) => {
      if (event.type !== 'tokens') return;
      const update = assembler.push(event.tokenIds, event.finishReason);
      const finished = update.finishReason !== null;
      // A stop string is found here: the engine does not know yet that the request is done.
      if (finished) this.#client.abort(requestId);
      onChunk({ index: 0, tokenIds: event.tokenIds, seed, finished, ...update });
    };
    const requestId = this.#client.submit(request, { onEvent, onError });
    return requestId;
  }
}

function isList<T>(value: T | readonly T[]): value is readonly T[] {
  return Array.isArray(value);
}
