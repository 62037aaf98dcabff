/** Ranks that are lost, at every step and in every way: requests get what they get alone, once. */
import t from 'tap';
import type { EngineOptions } from '../../../rank/engine/executor.ts';
import { type EngineRequest, greedyParams } from '../../../rank/scheduler/request.ts';
import { resolveSpeculativeConfig } from '../../../rank/speculative/config.ts';
import { startClient } from '../../helpers/client-run.ts';
import { makeOptions, type Outcome, runAlone } from '../../helpers/engine-run.ts';
import { type LossWay, lossWays } from '../../helpers/lossy-executor.ts';
import { cutTo, makeRandom, randomOptions, randomRequest } from '../../helpers/random-schedule.ts';
import { generateRequest, hiddenRequest, logitsRequest } from '../../helpers/requests.ts';
import { partOf } from '../../helpers/scale.ts';

const numSchedules = partOf(1600, 10);

/** Every kind of request, over steps enough for each to be in flight with others. */
function mixedRequests(): EngineRequest[] {
  const prompt = (length: number, factor: number) => Array.from({ length }, (_, i) => (i * factor + 3) % 31);
  const params = { ...greedyParams, temperature: 0.5, seed: 7n };
  return [
    generateRequest(0, prompt(18, 5), { maxTokens: 9, params: { ...params, numLogprobs: 2, numPromptLogprobs: 1 } }),
    generateRequest(1, prompt(18, 5), { n: 3, maxTokens: 7, eosTokenIds: [7, 11], params: { ...params, numPromptLogprobs: 0 } }),
    logitsRequest(2, prompt(21, 7)),
    hiddenRequest(3, prompt(17, 3), 5),
    generateRequest(4, prompt(5, 11), { maxTokens: 12, params }),
  ];
}

const drafting: Partial<EngineOptions> = {
  speculativeConfig: resolveSpeculativeConfig(
    { method: 'draft_model', model: 'toy', numSpeculativeTokens: 3, adaptiveK: false },
    1,
    'none',
  ),
  draftLimits: { maxModelLen: 40, maxNumBatchedTokens: 16 },
};

/** Runs the mixed requests; `lostAt` counts the steps of all epochs. */
async function runMixed(overrides: Partial<EngineOptions>, lostAt: readonly number[], way: LossWay) {
  const options = makeOptions(overrides);
  let numSteps = 0;
  const run = startClient(options, () => (lostAt.includes(numSteps++) ? way : null));
  const requests = mixedRequests();
  for (const request of requests) run.submit(request);
  await run.finished();
  return { run, numSteps, expected: requests.map((request) => runAlone(request, options.maxModelLen)) };
}

const settings: Record<string, Partial<EngineOptions>> = {
  'a plan in flight': { maxNumPlansInFlight: 1 },
  'two plans in flight': {},
  'prefix cache and preemption': { numBlocks: 14, enablePrefixCaching: true },
  'chunks of four tokens': { maxNumBatchedTokens: 9, longPrefillTokenThreshold: 4, maxNumLogitRows: 8 },
  'a draft model': { ...drafting, enablePrefixCaching: true },
};

for (const [name, overrides] of Object.entries(settings)) {
  t.test(`${name}: a loss at each step`, async (t) => {
    const { numSteps } = await runMixed(overrides, [], 'fails');
    for (const way of lossWays) {
      for (let step = 0; step < numSteps; step++) {
        const { run, expected } = await runMixed(overrides, [step], way);
        const { executor, engine, hits, outcomes } = run;
        if (JSON.stringify(outcomes) !== JSON.stringify(expected)) t.same(outcomes, expected, `${way} at step ${step}`);
        // A late step's successor may have finished everything.
        t.equal(engine.stats.numRestarts, executor.numLosses);
        t.ok(hits.flat().every(({ size }) => size === 1));
        const { numFreeBlocks, numFreeDraftBlocks, numBlocks, numRequests, numFinishedRequests } = engine.stats;
        const left = [numFreeBlocks, numFreeDraftBlocks, numRequests, numFinishedRequests];
        if (left.join() !== [numBlocks, numBlocks, 5, 5].join()) t.same(left, [numBlocks, numBlocks, 5, 5]);
      }
    }
  });
}

t.test('losses follow each other before anything is ready', async (t) => {
  const { run, expected } = await runMixed({}, [1, 2, 3, 5, 6, 7, 9, 14], 'late');
  t.same(run.outcomes, expected);
  t.equal(run.executor.numLosses, 9, 'the fifth is lost again before it is ready');
});

t.test('two losses before the client of another thread hears of the first', async (t) => {
  const options = makeOptions();
  const run = startClient(options, () => null, true);
  const requests = mixedRequests();
  for (const request of requests) run.submit(request);
  await new Promise<void>((resolve) => {
    run.executor.onStep = ({ step }) => step === 4 && resolve();
  });
  run.executor.loseTwice();
  await run.finished();
  t.same(
    run.outcomes,
    requests.map((request) => runAlone(request, options.maxModelLen)),
  );
  t.match(run.engine.stats, { numRestarts: 2, numRequests: 5, numFinishedRequests: 5 });
});

/** Random requests, losses, aborts, and arrivals before, during and after losses. */
async function runSchedule(seed: number, isRemote: boolean) {
  const random = makeRandom(seed);
  const { integer, oneIn } = random;
  const options = randomOptions(random);
  const rarity = integer(2, 30);
  // A long prompt would never be through with losses without end.
  let numLeft = integer(1, 12);
  const run = startClient(
    options,
    () => {
      if (numLeft === 0 || !oneIn(rarity)) return null;
      numLeft--;
      return lossWays[integer(0, lossWays.length - 1)] as LossWay;
    },
    isRemote,
  );
  const { client, engine, executor, outcomes, submit, stopSample, stopped } = run;
  const requests = Array.from({ length: integer(1, 14) }, (_, i) => randomRequest(i, random, options.schedulingPolicy === 'priority'));
  const arriving = [...requests];
  const aborted = new Set<number>();
  const act = () => {
    while (arriving.length > 0 && oneIn(2)) submit(arriving.shift() as EngineRequest);
    const id = integer(0, requests.length - 1);
    const outcome = outcomes[id];
    if (!oneIn(25) || outcome === undefined || outcome.done) return;
    // A stop string ends one sample, which has a token then.
    const sample = outcome.samples.find((one) => one.finishReason === null && one.tokenIds.length > 0 && !stopped.has(one));
    if (sample !== undefined && oneIn(2)) stopSample(id, outcome.samples.indexOf(sample));
    else {
      client.abort(id);
      outcome.done = true;
    }
    aborted.add(id);
  };
  executor.onStep = act;
  executor.onLost = act;
  while (outcomes.length < requests.length) {
    if (engine.stats.numRunning + engine.stats.numWaiting === 0 && arriving.length > 0) submit(arriving.shift() as EngineRequest);
    await new Promise(setImmediate);
  }
  await run.finished();
  return { ...run, requests, aborted, options };
}

t.test('whatever is lost, and when', async (t) => {
  const totals = { numRestarts: 0, numPreemptions: 0, numPrefixHitTokens: 0, numAborted: 0, numAccepted: 0 };
  for (let seed = 0; seed < numSchedules; seed++) {
    // Every third engine is in another thread, as it were.
    const isRemote = seed % 3 === 2;
    const { requests, outcomes, hits, aborted, engine, options } = await runSchedule(seed, isRemote);
    const expected = requests.map((request, i) => {
      const whole = runAlone(request, options.maxModelLen);
      return aborted.has(i) ? cutTo(whole, outcomes[i] as Outcome) : whole;
    });
    if (JSON.stringify(outcomes) !== JSON.stringify(expected)) t.same(outcomes, expected, `schedule ${seed}`);
    if (hits.flat().some(({ size }) => size > 1)) t.fail(`schedule ${seed}: prompt tokens found cached change`);
    const { stats } = engine;
    // A request that is aborted on its way to a remote engine is none of that one's.
    const numRequests = isRemote ? requests.length : stats.numRequests;
    const left = [stats.numFreeBlocks, stats.numFreeDraftBlocks, stats.numRunning, stats.numWaiting, numRequests];
    const nothing = [options.numBlocks, options.numBlocks, 0, 0, requests.length];
    if (left.join() !== nothing.join()) t.same(left, nothing, `schedule ${seed} leaves nothing behind`);
    t.equal(stats.numFinishedRequests + stats.numAbortedRequests, stats.numRequests);
    totals.numRestarts += stats.numRestarts;
    totals.numPreemptions += stats.numPreemptions;
    totals.numPrefixHitTokens += stats.numPrefixHitTokens;
    totals.numAborted += aborted.size;
    totals.numAccepted += stats.speculation?.numAcceptedTokens ?? 0;
  }
  for (const [name, count] of Object.entries(totals)) t.ok(count > numSchedules / 10, `${name}: ${count} in ${numSchedules} schedules`);
});
