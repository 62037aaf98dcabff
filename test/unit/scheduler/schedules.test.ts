/** Random schedules over the toy model: a request yields what it yields alone, and nothing is leaked. */
import t from 'tap';
import type { EngineRequest } from '../../../rank/scheduler/request.ts';
import { type Outcome, runAlone, type SampleOutcome, startEngine } from '../../helpers/engine-run.ts';
import { cutTo, makeRandom, randomOptions, randomRequest } from '../../helpers/random-schedule.ts';
import { partOf } from '../../helpers/scale.ts';

const numSchedules = partOf(2000, 8);

/** Runs random requests under a random schedule; returns their outcomes. */
async function runSchedule(seed: number) {
  const random = makeRandom(seed);
  const { integer, oneIn } = random;
  const options = randomOptions(random);
  const run = startEngine(options);
  const { engine, executor, outcomes, post } = run;
  const requests = Array.from({ length: integer(1, 14) }, (_, i) => randomRequest(i, random, options.schedulingPolicy === 'priority'));
  const aborted = new Set<number>();
  const { droppedSamples } = run;
  const arriving = [...requests];
  executor.onStep = () => {
    while (arriving.length > 0 && oneIn(2)) post(arriving.shift() as EngineRequest);
    const requestId = integer(0, requests.length - 1);
    const outcome = outcomes.get(requestId);
    if (!oneIn(30) || outcome === undefined || outcome.done) return;
    const open = outcome.samples.filter(({ finishReason }) => finishReason === null);
    // One sample may be aborted while the others continue.
    const index = open.length > 1 && oneIn(2) ? outcome.samples.indexOf(open[integer(0, open.length - 1)] as SampleOutcome) : undefined;
    engine.post({ type: 'abort', requestId, index });
    aborted.add(requestId);
    if (index !== undefined) droppedSamples.add(outcome.samples[index] as SampleOutcome);
    outcome.done = index === undefined || outcome.samples.every((sample) => sample.finishReason !== null || droppedSamples.has(sample));
  };
  while (outcomes.size < requests.length) {
    if (engine.stats.numRunning + engine.stats.numWaiting === 0) post(arriving.shift() as EngineRequest);
    await new Promise(setImmediate);
  }
  await run.finished();
  return { requests, outcomes, aborted, stats: engine.stats, options };
}

t.test('requests get what they get alone, whatever the schedule', async (t) => {
  const totals = { numPreemptions: 0, numPrefixHitTokens: 0, numEvictions: 0, numAborted: 0, numAccepted: 0, numRejected: 0 };
  for (let seed = 0; seed < numSchedules; seed++) {
    const { requests, outcomes, aborted, stats, options } = await runSchedule(seed);
    const found = requests.map(({ requestId }) => outcomes.get(requestId) as Outcome);
    const expected = requests.map((request, i) => {
      const whole = runAlone(request, options.maxModelLen);
      return aborted.has(request.requestId) ? cutTo(whole, found[i] as Outcome) : whole;
    });
    const left = [stats.numFreeBlocks, stats.numRunning, stats.numWaiting, stats.numFreeDraftBlocks];
    if (JSON.stringify(found) !== JSON.stringify(expected)) t.same(found, expected, `schedule ${seed}`);
    const nothing = [options.numBlocks, 0, 0, options.numBlocks];
    if (left.join() !== nothing.join()) t.same(left, nothing, `schedule ${seed} leaves nothing behind`);
    const { numRequests, numFinishedRequests, numAbortedRequests, numSteps, histograms } = stats;
    const counts = [numRequests, numFinishedRequests + numAbortedRequests, histograms.step.count];
    if (counts.join() !== [requests.length, requests.length, numSteps].join()) t.same(counts, [requests.length, requests.length, numSteps]);
    totals.numPreemptions += stats.numPreemptions;
    totals.numPrefixHitTokens += stats.numPrefixHitTokens;
    totals.numEvictions += stats.numEvictions;
    totals.numAborted += aborted.size;
    totals.numAccepted += stats.speculation?.numAcceptedTokens ?? 0;
    totals.numRejected += (stats.speculation?.numDraftTokens ?? 0) - (stats.speculation?.numAcceptedTokens ?? 0);
  }
  for (const [name, count] of Object.entries(totals)) t.ok(count > numSchedules / 10, `${name}: ${count} in ${numSchedules} schedules`);
});
