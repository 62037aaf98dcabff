/** Requests through an engine's client, over a toy executor that loses its ranks: the outcome of each. */
import type { StepPlan } from '../../protocol/step-plan.ts';
import { Engine } from '../../rank/engine/engine.ts';
import { EngineClient, type NewRequest, type RequestEvent } from '../../rank/engine/engine-client.ts';
import type { EngineOptions } from '../../rank/engine/executor.ts';
import type { EngineRequest } from '../../rank/scheduler/request.ts';
import { type Outcome, type SampleOutcome, vocabSize } from './engine-run.ts';
import { type LossWay, LossyExecutor } from './lossy-executor.ts';

/** An engine as another thread would see it: messages are cloned, and take time. */
function remote(engine: Engine): Engine {
  const far: Pick<Engine, 'stats' | 'listen' | 'post' | 'close'> = {
    stats: engine.stats,
    listen: (listener) =>
      engine.listen((event) => {
        const copy = structuredClone(event);
        setImmediate(() => listener(copy));
      }),
    post: (command) => {
      const copy = structuredClone(command);
      setImmediate(() => engine.post(copy));
    },
    close: () => engine.close(),
  };
  return far as Engine;
}

/** An engine and its client. `chooseLoss` says of each step how it is lost, null where it is not. */
export function startClient(options: EngineOptions, chooseLoss: (plan: StepPlan) => LossWay | null, isRemote = false) {
  const executor = new LossyExecutor(options, vocabSize, chooseLoss);
  const engine = new Engine(options, executor);
  executor.engine = engine;
  const client = new EngineClient(isRemote ? remote(engine) : engine);
  const outcomes: Outcome[] = [];
  /** Samples that their caller finished. */
  const stopped = new Set<SampleOutcome>();
  /** Prompt tokens found cached, as each sample's events say: of one sample they never change. */
  const hits: Set<number>[][] = [];
  const submit = (request: NewRequest & Partial<Pick<EngineRequest, 'requestId'>>): number => {
    const numSamples = request.type === 'generate' ? request.n : 0;
    const samples = Array.from({ length: numSamples }, (): SampleOutcome => ({ tokenIds: [], logprobs: [], finishReason: null }));
    const outcome: Outcome = { samples, promptLogprobs: [], rows: [], error: null, done: false };
    const ownHits = samples.map(() => new Set<number>());
    outcomes.push(outcome);
    hits.push(ownHits);
    return client.submit(request, {
      onEvent: (event) => {
        take(outcome, event, stopped);
        if (event.type === 'tokens') ownHits[event.index]?.add(event.numCachedTokens);
      },
      onError: (error) => {
        outcome.error = error;
        outcome.done = true;
      },
    });
  };
  /** As a stop string does: ends one sample. */
  const stopSample = (requestId: number, index: number) => {
    const outcome = outcomes[requestId] as Outcome;
    client.finishSample(requestId, index);
    stopped.add(outcome.samples[index] as SampleOutcome);
    outcome.done = isDone(outcome, stopped);
  };
  const finished = async () => {
    while (outcomes.some(({ done }) => !done)) await new Promise(setImmediate);
    // The last abort is on its way.
    if (isRemote) for (let i = 0; i < 3; i++) await new Promise(setImmediate);
    await client.close();
  };
  return { engine, executor, client, outcomes, hits, submit, stopSample, stopped, finished };
}

function isDone({ samples }: Outcome, stopped: ReadonlySet<SampleOutcome>): boolean {
  return samples.every((sample) => sample.finishReason !== null || stopped.has(sample));
}

function take(outcome: Outcome, event: RequestEvent, stopped: ReadonlySet<SampleOutcome>): void {
  if (event.type === 'promptLogprobs') outcome.promptLogprobs.push(...event.logprobs);
  else if (event.type === 'rows') {
    outcome.rows.push(...event.rows);
    outcome.done = event.finished;
  } else {
    const sample = outcome.samples[event.index] as SampleOutcome;
    sample.tokenIds.push(...event.tokenIds);
    sample.logprobs.push(...(event.logprobs ?? []));
    sample.finishReason = event.finishReason;
    outcome.done = isDone(outcome, stopped);
  }
}
