/** An engine over the toy model: the outcome of each request, and the outcome that each has alone. */
import { NdsError } from '../../protocol/errors.ts';
import { Engine } from '../../rank/engine/engine.ts';
import type { EngineOptions } from '../../rank/engine/executor.ts';
import type { EngineEvent } from '../../rank/engine/messages.ts';
import type { EngineRequest, FinishReason, GenerateRequest, TokenLogprobs } from '../../rank/scheduler/request.ts';
import { FakeExecutor, nextToken, seedKey, toyHidden, toyHiddenSize, toyLogits, toyLogprobs } from './fake-executor.ts';
import { smallLimits } from './requests.ts';

export const vocabSize = 31;

/** The outcome of one sample. */
export interface SampleOutcome {
  readonly tokenIds: number[];
  readonly logprobs: TokenLogprobs[];
  finishReason: FinishReason | null;
}

export interface Outcome {
  readonly samples: SampleOutcome[];
  readonly promptLogprobs: TokenLogprobs[];
  /** Logits or hidden states. */
  readonly rows: number[];
  error: NdsError | null;
  done: boolean;
}

export function makeOptions(overrides: Partial<EngineOptions> = {}): EngineOptions {
  const limits = { ...smallLimits, numBlocks: 64, maxModelLen: 40, maxNumSeqs: 8, maxNumBatchedTokens: 16, maxNumLogitRows: 12 };
  const noDrafts = { speculativeConfig: null, draftLimits: null };
  return { ...limits, vocabSize, sampleVocabSize: vocabSize, hiddenSize: toyHiddenSize, maxNumPlansInFlight: 2, ...noDrafts, ...overrides };
}

/** An engine over the toy model, with the outcome of each request. */
export function startEngine(options: EngineOptions) {
  const executor = new FakeExecutor(options, vocabSize);
  const outcomes = new Map<number, Outcome>();
  /** Samples that were aborted while other samples of their request continued. */
  const droppedSamples = new Set<SampleOutcome>();
  let wake = () => {};
  let failure: NdsError | null = null;
  const engine = new Engine(options, executor);
  engine.listen((event: EngineEvent) => {
    if (event.type === 'failed') failure = new NdsError(event.error.code, event.error.message);
    else if ('requestId' in event) take(outcomes.get(event.requestId) as Outcome, event, droppedSamples);
    wake();
  });
  const post = (request: EngineRequest) => {
    const n = request.type === 'generate' ? request.n : 0;
    const samples = Array.from({ length: n }, (): SampleOutcome => ({ tokenIds: [], logprobs: [], finishReason: null }));
    outcomes.set(request.requestId, { samples, promptLogprobs: [], rows: [], error: null, done: false });
    engine.post(request);
  };
  const finished = async () => {
    while (failure === null && [...outcomes.values()].some(({ done }) => !done)) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    if (failure !== null) throw failure;
    await engine.close();
  };
  return { engine, executor, outcomes, droppedSamples, post, finished };
}

function take(outcome: Outcome, event: Extract<EngineEvent, { requestId: number }>, dropped: ReadonlySet<SampleOutcome>): void {
  if (event.type === 'promptLogprobs') outcome.promptLogprobs.push(...event.logprobs);
  else if (event.type === 'tokens') {
    const sample = outcome.samples[event.index] as SampleOutcome;
    sample.tokenIds.push(...event.tokenIds);
    sample.logprobs.push(...(event.logprobs ?? []));
    sample.finishReason = event.finishReason;
    outcome.done = outcome.samples.every((other) => other.finishReason !== null || dropped.has(other));
  } else if (event.type === 'rows') {
    outcome.rows.push(...event.rows);
    outcome.done = event.finished;
  } else {
    outcome.error = new NdsError(event.error.code, event.error.message);
    outcome.done = true;
  }
}

/** The outcome of one sample that runs alone. */
export function sampleAlone(request: GenerateRequest, index: number, maxModelLen: number): SampleOutcome {
  const { params: p, promptTokenIds, maxTokens, eosTokenIds } = request;
  const floats = [p.temperature, p.topP, p.minP, p.presencePenalty, p.frequencyPenalty, p.repetitionPenalty];
  const ints = [p.topK, index, promptTokenIds.length, p.minTokens, p.numLogprobs ?? -1, p.numPromptLogprobs ?? -1];
  const key = seedKey(floats, ints, [Number(p.seed & 0xffffffffn), Number(p.seed >> 32n)]);
  const tokenIds = [...promptTokenIds];
  const logprobs: TokenLogprobs[] = [];
  for (;;) {
    const token = nextToken(tokenIds, key, vocabSize);
    if (p.numLogprobs !== null) logprobs.push(toyLogprobs(tokenIds, token, p.numLogprobs, vocabSize));
    tokenIds.push(token);
    const output = tokenIds.slice(promptTokenIds.length);
    if (eosTokenIds.includes(token)) return { tokenIds: output, logprobs, finishReason: 'stop' };
    if (output.length === maxTokens || tokenIds.length === maxModelLen) return { tokenIds: output, logprobs, finishReason: 'length' };
  }
}

/** The outcome of a request that runs alone. */
export function runAlone(request: EngineRequest, maxModelLen: number): Outcome {
  const { promptTokenIds } = request;
  const context = (i: number) => promptTokenIds.slice(0, i + 1);
  const whole = { error: null, done: true };
  if (request.type === 'logits') {
    return { samples: [], promptLogprobs: [], rows: promptTokenIds.flatMap((_, i) => toyLogits(context(i), vocabSize)), ...whole };
  }
  if (request.type === 'hidden') {
    const rows = promptTokenIds.flatMap((_, i) => (i < request.firstRow ? [] : toyHidden(context(i))));
    return { samples: [], promptLogprobs: [], rows, ...whole };
  }
  const { numPromptLogprobs } = request.params;
  const promptLogprobs =
    numPromptLogprobs === null
      ? []
      : promptTokenIds.slice(1).map((token, i) => toyLogprobs(context(i), token, numPromptLogprobs, vocabSize));
  return {
    samples: Array.from({ length: request.n }, (_, i) => sampleAlone(request, i, maxModelLen)),
    promptLogprobs,
    rows: [],
    ...whole,
  };
}
