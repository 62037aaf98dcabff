/** The engine against a toy model that reads the KV through the block tables: a wrong slot, block or length changes the tokens. */
import t from 'tap';
import { NdsError } from '../../protocol/errors.ts';
import { Engine, type EngineOptions } from '../../rank/engine.ts';
import type { EngineEvent, EngineRequest, FinishReason, GenerateRequest } from '../../rank/engine-messages.ts';
import { FakeExecutor, nextToken, seedKey, toyLogits } from '../helpers/fake-executor.ts';
import { randomIntegers } from '../helpers/random.ts';

const vocabSize = 31;
const eosTokenId = 7;

interface Outcome {
  tokenIds: number[];
  logits: number[];
  finishReason: FinishReason | null;
  error: NdsError | null;
  done: boolean;
}

/** An engine over the toy model, and what came of each request. */
function start(options: EngineOptions) {
  const executor = new FakeExecutor(options, vocabSize);
  const outcomes = new Map<number, Outcome>();
  let wake = () => {};
  let failure: NdsError | null = null;
  const engine = new Engine(options, executor, (event: EngineEvent) => {
    if (event.type === 'failed') failure = new NdsError(event.error.code, event.error.message);
    else if (event.type !== 'stats') {
      const outcome = outcomes.get(event.requestId) as Outcome;
      if (event.type === 'tokens') {
        outcome.tokenIds.push(...event.tokenIds);
        outcome.finishReason = event.finishReason;
        outcome.done = event.finishReason !== null;
      } else if (event.type === 'logits') {
        outcome.logits.push(...event.logits);
        outcome.done = event.finished;
      } else {
        outcome.error = new NdsError(event.error.code, event.error.message);
        outcome.done = true;
      }
    }
    wake();
  });
  const post = (request: EngineRequest) => {
    outcomes.set(request.requestId, { tokenIds: [], logits: [], finishReason: null, error: null, done: false });
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
  return { engine, executor, outcomes, post, finished };
}

function makeOptions(overrides: Partial<EngineOptions> = {}): EngineOptions {
  const limits = { numBlocks: 64, blockSize: 4, maxModelLen: 40, maxNumSeqs: 8, maxNumBatchedTokens: 16, maxNumLogitRows: 12 };
  return { ...limits, vocabSize, maxNumPlansInFlight: 2, ...overrides };
}

function generateRequest(requestId: number, promptTokenIds: number[], overrides: Partial<GenerateRequest> = {}): GenerateRequest {
  const params = { temperature: 0.5, topP: 0.9, minP: 0.1, topK: 3, seed: (BigInt(requestId) << 40n) + 5n, sampleIndex: 0 };
  return { type: 'generate', requestId, promptTokenIds, maxTokens: 6, eosTokenIds: [eosTokenId], params, ...overrides };
}

/** What a request gives when nothing else exists. */
function runAlone(request: GenerateRequest, maxModelLen: number): { tokenIds: number[]; finishReason: FinishReason } {
  const { params, promptTokenIds, maxTokens, eosTokenIds } = request;
  const seeds = [Number(params.seed & 0xffffffffn), Number(params.seed >> 32n)];
  const key = seedKey([params.temperature, params.topP, params.minP], [params.topK, params.sampleIndex], seeds);
  const tokenIds = [...promptTokenIds];
  for (;;) {
    const token = nextToken(tokenIds, key, vocabSize);
    tokenIds.push(token);
    const output = tokenIds.slice(promptTokenIds.length);
    if (eosTokenIds.includes(token)) return { tokenIds: output, finishReason: 'stop' };
    if (output.length === maxTokens || tokenIds.length === maxModelLen) return { tokenIds: output, finishReason: 'length' };
  }
}

/** The logits of every row of a prompt. */
function allLogits(promptTokenIds: readonly number[]): number[] {
  return promptTokenIds.flatMap((_, i) => toyLogits(promptTokenIds.slice(0, i + 1), vocabSize));
}

/** Random requests, and what becomes of them under a random schedule. */
async function runSchedule(seed: number) {
  const below = randomIntegers(seed);
  const integer = (low: number, high: number) => low + below(high - low + 1);
  const oneIn = (count: number) => below(count) === 0;
  const maxNumSeqs = integer(1, 6);
  const options = makeOptions({
    numBlocks: integer(10, 16),
    maxNumSeqs,
    maxNumBatchedTokens: maxNumSeqs + integer(0, 20),
    maxNumLogitRows: maxNumSeqs + integer(0, 5),
    maxNumPlansInFlight: integer(1, 3),
  });
  const run = start(options);
  const { engine, executor, outcomes, post } = run;
  const requests: EngineRequest[] = Array.from({ length: integer(1, 14) }, (_, requestId) => {
    const promptTokenIds = Array.from({ length: integer(1, 24) }, () => integer(0, vocabSize - 1));
    if (oneIn(5)) return { type: 'logits', requestId, promptTokenIds };
    return generateRequest(requestId, promptTokenIds, { maxTokens: integer(1, 24), eosTokenIds: oneIn(2) ? [eosTokenId] : [] });
  });
  const aborted = new Set<number>();
  const arriving = [...requests];
  executor.onStep = () => {
    while (arriving.length > 0 && oneIn(2)) post(arriving.shift() as EngineRequest);
    const requestId = integer(0, requests.length - 1);
    const outcome = outcomes.get(requestId);
    if (!oneIn(30) || outcome === undefined || outcome.done) return;
    engine.post({ type: 'abort', requestId });
    outcome.done = true;
    aborted.add(requestId);
  };
  while (outcomes.size < requests.length) {
    if (engine.stats.numRunning + engine.stats.numWaiting === 0) post(arriving.shift() as EngineRequest);
    await new Promise(setImmediate);
  }
  await run.finished();
  return { requests, outcomes, aborted, stats: engine.stats, options };
}

t.test('requests in one batch get what they get alone, whatever the schedule', async (t) => {
  let numPreemptions = 0;
  for (let seed = 0; seed < 250; seed++) {
    const { requests, outcomes, aborted, stats, options } = await runSchedule(seed);
    const found = requests.map(({ requestId }) => outcomes.get(requestId));
    const expected = requests.map((request, i) => {
      const { tokenIds, logits } = found[i] as Outcome;
      const done = { error: null, done: true, finishReason: null, tokenIds: [] as number[], logits: [] as number[] };
      const whole =
        request.type === 'logits'
          ? { ...done, logits: allLogits(request.promptTokenIds) }
          : { ...done, ...runAlone(request, options.maxModelLen) };
      if (!aborted.has(request.requestId)) return whole;
      return {
        ...whole,
        finishReason: null,
        tokenIds: whole.tokenIds.slice(0, tokenIds.length),
        logits: whole.logits.slice(0, logits.length),
      };
    });
    t.same(found, expected, `schedule ${seed}`);
    t.same(
      [stats.numFreeBlocks, stats.numRunning, stats.numWaiting],
      [options.numBlocks, 0, 0],
      `nothing is left behind by schedule ${seed}`,
    );
    const { numRequests, numFinishedRequests, numAbortedRequests, numSteps, histograms } = stats;
    t.same([numRequests, numFinishedRequests + numAbortedRequests], [requests.length, requests.length], 'each came and went');
    t.equal(histograms.step.count, numSteps);
    const numFirst = requests.filter(({ type }, i) => type === 'generate' && (found[i] as Outcome).tokenIds.length > 0).length;
    t.equal(histograms.timeToFirstToken.count, numFirst);
    numPreemptions += stats.numPreemptions;
  }
  t.ok(numPreemptions > 150, `the schedules force preemption, ${numPreemptions} times`);
});

t.test('prompts of one turn share the first step, and the next plan leaves while one runs', async (t) => {
  const { executor, post, finished } = start(makeOptions({ maxNumPlansInFlight: 2 }));
  let numGiven = 0;
  let mostAhead = 0;
  const execute = executor.execute.bind(executor);
  executor.execute = (plan) => {
    numGiven++;
    return execute(plan);
  };
  executor.onStep = () => {
    mostAhead = Math.max(mostAhead, numGiven - executor.plans.length);
  };
  post(generateRequest(0, [1, 2, 3], { eosTokenIds: [] }));
  post(generateRequest(1, [4, 5], { eosTokenIds: [] }));
  await finished();
  t.same(executor.plans[0]?.tokenIds, Int32Array.of(1, 2, 3, 4, 5));
  t.same(executor.plans[1]?.tokenIds, Int32Array.of(-1, -1), 'decodes name the newest token of their slots');
  t.equal(executor.plans.length, 6, 'no step is run for a length that is known to be reached');
  t.equal(mostAhead, 2, 'the plan that runs and one behind it');
});

t.test('the context ends a sequence as maxTokens does', async (t) => {
  const options = makeOptions({ maxModelLen: 8 });
  const { outcomes, post, finished } = start(options);
  const request = generateRequest(0, [1, 2, 3], { maxTokens: 100, eosTokenIds: [] });
  post(request);
  await finished();
  t.equal(outcomes.get(0)?.tokenIds.length, 5);
  t.match(outcomes.get(0), runAlone(request, 8));
});

t.test('a request that can never finish is refused and hurts no other', async (t) => {
  const options = makeOptions({ numBlocks: 4, blockSize: 4, maxModelLen: 24 });
  const { outcomes, post, finished } = start(options);
  const fits = generateRequest(0, [1, 2, 3], { maxTokens: 14 });
  post(fits);
  post(generateRequest(1, []));
  post(generateRequest(2, new Array(24).fill(1)));
  post(generateRequest(3, [1, 2, 3], { maxTokens: 15 }));
  post({ type: 'logits', requestId: 4, promptTokenIds: new Array(17).fill(1) });
  await finished();
  t.match(outcomes.get(0), runAlone(fits, 24), '17 tokens, of which the last is never cached, fill 4 blocks of 4');
  for (const [requestId, message] of [
    [1, /at least one prompt token/],
    [2, /prompt of at most 23 tokens \(maxModelLen is 24\) for request 2 but received 24 tokens/],
    [3, /all KV blocks together hold 16/],
    [4, /all KV blocks together hold 16/],
  ] as const) {
    t.match(outcomes.get(requestId)?.error, { code: 'ERR_REQUEST', message });
  }
});

t.test('logits come in pieces that respect the limit of rows', async (t) => {
  const { executor, outcomes, post, finished } = start(makeOptions({ maxNumLogitRows: 8 }));
  const promptTokenIds = Array.from({ length: 21 }, (_, i) => i);
  post({ type: 'logits', requestId: 0, promptTokenIds });
  await finished();
  t.same(
    executor.plans.map(({ logitRows }) => logitRows.length),
    [8, 8, 5],
  );
  t.same(outcomes.get(0)?.logits, allLogits(promptTokenIds));
});

t.test('an aborted request frees its slot and blocks for the next plan built', async (t) => {
  const { engine, executor, outcomes, post, finished } = start(makeOptions({ numBlocks: 3, maxNumSeqs: 1, maxNumPlansInFlight: 1 }));
  post(generateRequest(0, [1, 2, 3, 4, 5], { eosTokenIds: [] }));
  const second = generateRequest(1, [6, 7, 8, 9, 10]);
  post(second);
  executor.onStep = ({ step }) => {
    if (step !== 1) return;
    engine.post({ type: 'abort', requestId: 0 });
    (outcomes.get(0) as Outcome).done = true;
  };
  await finished();
  t.same(executor.plans[2]?.admitSlots, Int32Array.of(0));
  t.match(outcomes.get(1), runAlone(second, 40));
  t.equal(outcomes.get(0)?.tokenIds.length, 1, 'what the step in flight brought for it is dropped');
});

t.test('a failed step ends the engine with its cause', async (t) => {
  const { engine, executor, outcomes, post, finished } = start(makeOptions());
  post(generateRequest(0, [1, 2, 3], { eosTokenIds: [] }));
  executor.onStep = ({ step }) => {
    if (step === 2) throw new NdsError('ERR_STEP_TIMEOUT', 'step 2 timed out');
  };
  await t.rejects(finished(), { code: 'ERR_STEP_TIMEOUT', message: 'step 2 timed out' });
  t.match(executor.failure, { code: 'ERR_STEP_TIMEOUT' }, 'the executor hears that no plan follows');
  t.equal(outcomes.get(0)?.tokenIds.length, 2);
  const numPlans = executor.plans.length;
  post(generateRequest(1, [1]));
  await engine.close();
  t.equal(executor.plans.length, numPlans, 'nothing runs any more');
});

t.test('a result that does not match its plan is a failure', async (t) => {
  const { executor, post, finished } = start(makeOptions());
  const execute = executor.execute.bind(executor);
  executor.execute = async (plan) => ({ ...(await execute(plan)), numTokens: new Int32Array(1) });
  post(generateRequest(0, [1, 2, 3]));
  await t.rejects(finished(), { code: 'ERR_PROTOCOL', message: 'Expected 1 tokens for sequence 0 of the step but received 0' });
});

t.test('closing waits for the plan that runs', async (t) => {
  const { engine, executor, post } = start(makeOptions({ maxNumPlansInFlight: 2 }));
  post(generateRequest(0, [1, 2, 3], { eosTokenIds: [] }));
  await new Promise<void>((resolve) => {
    executor.onStep = ({ step }) => step === 1 && resolve();
  });
  await engine.close();
  const numPlans = executor.plans.length;
  t.ok(numPlans >= 2);
  await new Promise(setImmediate);
  t.equal(executor.plans.length, numPlans, 'no plan is under way');
});
