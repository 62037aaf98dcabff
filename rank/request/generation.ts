/** Runs requests to their ends: all of a call's whole outputs, or one as a stream. */
import type { NdsError } from '../../protocol/errors.ts';
import { AsyncQueue } from './async-queue.ts';
import { ProgressCounter } from './generate-progress.ts';
import { type EncodedPrompt, whenEncoded } from './prompt.ts';
import { checkAborted, type GenerateOptions, listenForAbort, type RequestOptions, raceAbort } from './request-options.ts';
import { CompletionBuilder, RequestOutput, type StreamChunk } from './request-output.ts';
import { RequestRun, type ServingModel } from './request-run.ts';
import type { ResolvedSamplingParams } from './sampling-params.ts';

/** A prompt, perhaps still being encoded, and its parameters. */
export type NewGeneration = readonly [prompt: EncodedPrompt | Promise<EncodedPrompt>, params: ResolvedSamplingParams];

/**
 * Generates in one batch.
 * @throws NdsError `ERR_ABORTED` when the signal aborts; the first failure of a request, or of the engine.
 */
export async function generateAll(
  model: ServingModel,
  requests: readonly NewGeneration[],
  { signal, priority = 0, onProgress }: GenerateOptions,
): Promise<RequestOutput[]> {
  // At once where no prompt is long: requests are submitted in the order of the calls.
  const encoding = whenEncoded(requests.map(([prompt]) => prompt));
  const prompts = encoding instanceof Promise ? await raceAbort(encoding, signal) : encoding;
  checkStart(model, signal);
  const paramsOf = (i: number) => (requests[i] as NewGeneration)[1];
  const runs: RequestRun[] = [];
  let stopListening = () => {};
  let progress: ProgressCounter | null = null;
  const aborted = new Promise<never>((_, reject) => {
    stopListening = listenForAbort(signal, reject);
    if (onProgress !== undefined) progress = new ProgressCounter(onProgress, prompts.length, reject);
  });
  const generateOne = (prompt: EncodedPrompt, params: ResolvedSamplingParams): Promise<RequestOutput> =>
    new Promise((resolve, reject) => {
      const builders = Array.from({ length: params.n }, () => new CompletionBuilder());
      const onChunk = (chunk: StreamChunk) => {
        builders[chunk.index]?.push(chunk);
        progress?.add(chunk.tokenIds.length, chunk.finished);
        if (chunk.finished) resolve(toRequestOutput(run, builders));
      };
      const run = new RequestRun(model, prompt, params, priority, { onChunk, onError: reject });
      runs.push(run);
      run.start();
    });
  try {
    return await Promise.race([Promise.all(prompts.map((prompt, i) => generateOne(prompt, paramsOf(i)))), aborted]);
  } finally {
    stopListening();
    // Once the call has rejected, its other requests have no reader.
    for (const run of runs) run.cancel();
  }
}

/** Streams the output of one prompt. Leaving the loop early aborts the request. @throws NdsError as `generateAll`. */
export async function* streamOne(
  model: ServingModel,
  [encoding, params]: NewGeneration,
  { signal, priority = 0 }: RequestOptions,
): AsyncGenerator<StreamChunk, void, undefined> {
  const chunks = new AsyncQueue<StreamChunk>();
  const listener = { onChunk: (chunk: StreamChunk) => chunks.push(chunk), onError: (error: NdsError) => chunks.fail(error) };
  const encoded = encoding instanceof Promise ? await raceAbort(encoding, signal) : encoding;
  checkStart(model, signal);
  const run = new RequestRun(model, encoded, params, priority, listener);
  const stopListening = listenForAbort(signal, (error) => {
    run.cancel();
    chunks.fail(error);
  });
  run.start();
  try {
    for (let finished = false; !finished; ) {
      const chunk = await chunks.next();
      finished = chunk.finished;
      yield chunk;
    }
  } finally {
    stopListening();
    run.cancel();
  }
}

/** Before requests are submitted: a long prompt may have taken time. */
function checkStart({ client }: ServingModel, signal: AbortSignal | undefined): void {
  client.checkOpen();
  checkAborted(signal);
}

function toRequestOutput(
  { prompt, params, promptLogprobs, numCachedTokens }: RequestRun,
  builders: readonly CompletionBuilder[],
): RequestOutput {
  return new RequestOutput({
    ...prompt,
    promptLogprobs,
    numCachedTokens,
    seed: params.seed,
    outputs: builders.map(({ output }) => output) as unknown as RequestOutput['outputs'],
  });
}
