/** Embeddings of prompts: hidden states after the final norm, pooled over the tokens of each. */
import { boolean, type Check, checkFields, isObject, oneOf } from '../../protocol/checks.ts';
import { unexpected } from '../../protocol/errors.ts';
import { type EncodedPrompt, encodePrompt, type Prompt, whenEncoded } from './prompt.ts';
import { checkAborted, type RequestOptions, raceAbort, requestChecks } from './request-options.ts';
import type { ServingModel } from './request-run.ts';

/** How to embed. Every option is optional; an unknown one is refused. */
export interface EmbedOptions extends RequestOptions {
  /** Which hidden states make the embedding: the `'last'` token's, or the `'mean'` of all. Default `'last'`. */
  readonly pooling?: 'last' | 'mean' | undefined;
  /** Whether the embedding is divided by its Euclidean length. Default true. */
  readonly normalize?: boolean | undefined;
}

const checks: Readonly<Record<keyof Required<EmbedOptions>, Check<unknown>>> = {
  ...requestChecks,
  pooling: oneOf('last', 'mean'),
  normalize: boolean,
};

/** @throws NdsError `ERR_REQUEST` naming the option that is unknown or wrong; `ERR_ABORTED` for a signal that has fired. */
export function checkEmbedOptions(options: unknown = {}): EmbedOptions {
  if (!isObject(options)) throw unexpected('ERR_REQUEST', 'an object of embedding options', null, options);
  checkFields(options, checks, { plural: 'embedding options' }, 'ERR_REQUEST');
  checkAborted((options as EmbedOptions).signal);
  return options;
}

/** A prompt and its embedding. */
export class EmbeddingOutput {
  /** Null when the prompt was given as token ids. */
  readonly prompt: string | null;
  readonly promptTokenIds: readonly number[];
  /** `[hiddenSize]` */
  readonly embedding: Float32Array;

  constructor(fields: Pick<EmbeddingOutput, 'prompt' | 'promptTokenIds' | 'embedding'>) {
    this.prompt = fields.prompt;
    this.promptTokenIds = fields.promptTokenIds;
    this.embedding = fields.embedding;
  }

  /** The same with the embedding as an array, for `JSON.stringify`. */
  toJSON() {
    return { ...this, embedding: Array.from(this.embedding) };
  }
}

/** The mean of rows, summed one after the other in fp32: where they are cut into pushes changes no bit. */
export class MeanPooler {
  #sum: Float32Array | null = null;
  #numRows = 0;
  readonly #width: number;

  constructor(width: number) {
    this.#width = width;
  }

  /** @param rows - `[numRows, width]`, in order of position */
  push(rows: Float32Array): void {
    for (let begin = 0; begin < rows.length; begin += this.#width) {
      const row = rows.subarray(begin, begin + this.#width);
      this.#numRows++;
      // Not 0 + row, which would turn -0 into 0.
      if (this.#sum === null) this.#sum = row.slice();
      else for (let i = 0; i < row.length; i++) this.#sum[i] = (this.#sum[i] as number) + (row[i] as number);
    }
  }

  /** `[width]` the mean of all rows, of which there must be one. */
  mean(): Float32Array {
    return (this.#sum as Float32Array).map((sum) => sum / this.#numRows);
  }
}

/** A vector divided by its length, which is summed in double precision; one of length 0 unchanged. */
export function normalized(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  return length === 0 ? vector : vector.map((x) => x / length);
}

/**
 * Embeds prompts in one batch.
 * @throws NdsError `ERR_REQUEST` for a bad prompt or option, before anything runs; `ERR_ABORTED` when the signal aborts;
 * the cause once the engine is closed or has failed.
 */
export async function embedAll(model: ServingModel, prompts: readonly Prompt[], options: EmbedOptions): Promise<EmbeddingOutput[]> {
  const { signal } = options;
  const encoding = whenEncoded(
    Array.from(prompts, (prompt) => {
      const encoded = encodePrompt(prompt, model.tokenizer, model.limits, 0);
      // Nobody awaits it where another prompt is refused.
      if (encoded instanceof Promise) encoded.catch(() => {});
      return encoded;
    }),
  );
  const encoded = encoding instanceof Promise ? await raceAbort(encoding, signal) : encoding;
  model.client.checkOpen();
  checkAborted(signal);
  const requestIds: number[] = [];
  try {
    return await raceAbort(Promise.all(encoded.map((prompt) => embedOne(model, prompt, options, requestIds))), signal);
  } finally {
    // Once the call has rejected, its other requests have no reader.
    for (const requestId of requestIds) model.client.abort(requestId);
  }
}

function embedOne(
  { client, hiddenSize }: ServingModel,
  { prompt, promptTokenIds }: EncodedPrompt,
  { pooling = 'last', normalize = true, priority = 0 }: EmbedOptions,
  requestIds: number[],
): Promise<EmbeddingOutput> {
  const pooler = new MeanPooler(hiddenSize);
  const firstRow = pooling === 'last' ? promptTokenIds.length - 1 : 0;
  return new Promise((resolve, reject) => {
    const requestId = client.submit(
      { type: 'hidden', promptTokenIds, firstRow, priority },
      {
        onError: reject,
        onEvent: (event) => {
          if (event.type !== 'rows') return;
          pooler.push(event.rows);
          if (!event.finished) return;
          const embedding = normalize ? normalized(pooler.mean()) : pooler.mean();
          resolve(new EmbeddingOutput({ prompt, promptTokenIds, embedding }));
        },
      },
    );
    requestIds.push(requestId);
  });
}
