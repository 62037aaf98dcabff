/** Random schedules over the toy model: a request yields what it yields alone, and nothing is leaked. */
import t from 'tap';
import type { EngineOptions } from '../../../rank/engine/engine.ts';
import { type EngineRequest, greedyParams } from '../../../rank/scheduler/request.ts';
import { resolveSpeculativeConfig, type SpeculativeConfig, type SpeculativeMethod } from '../../../rank/speculative/config.ts';
import { makeOptions, type Outcome, runAlone, type SampleOutcome, startEngine, vocabSize } from '../../helpers/engine-run.ts';
import { randomIntegers } from '../../helpers/random.ts';
import { generateRequest, hiddenRequest, logitsRequest } from '../../helpers/requests.ts';
import { partOf } from '../../helpers/scale.ts';

const numSchedules = partOf(2000, 8);

function makeRandom(seed: number) {
  const below = randomIntegers(seed);
  const integer = (low: number, high: number) => low + below(high - low + 1);
  return { integer, oneIn: (count: number) => below(count) === 0 };
}
type Random = ReturnType<typeof makeRandom>;

/** No speculation, text proposers, a draft model or both; the draft model's context may be shorter than the model's. */
function randomSpeculation({ integer, oneIn }: Random, maxNumBatchedTokens: number): Partial<EngineOptions> {
  if (oneIn(3)) return {};
  const hasModel = !oneIn(3);
  const texts: SpeculativeMethod[] = [[], ['ngram'], ['suffix'], ['ngram', 'suffix']][integer(hasModel ? 0 : 1, 3)] as SpeculativeMethod[];
  const config: SpeculativeConfig = {
    method: hasModel ? ['draft_model', ...texts] : texts,
    ...(hasModel && { model: 'toy' }),
    numSpeculativeTokens: integer(1, 6),
    promptLookupMin: 1,
    promptLookupMax: integer(1, 3),
    suffixDecodingMaxCachedRequests: integer(0, 3),
    adaptiveK: false,
  };
  const draftLimits = hasModel ? { maxModelLen: oneIn(3) ? integer(4, 40) : 40, maxNumBatchedTokens } : null;
  return { speculativeConfig: resolveSpeculativeConfig(config, 1), draftLimits };
}

function randomOptions({ integer, oneIn }: Random) {
  const maxNumSeqs = integer(1, 6);
  const maxNumBatchedTokens = maxNumSeqs + integer(0, 20);
  return makeOptions({
    ...randomSpeculation({ integer, oneIn }, maxNumBatchedTokens),
    numBlocks: integer(10, 18),
    maxNumSeqs,
    maxNumBatchedTokens,
    maxNumLogitRows: maxNumSeqs + integer(0, 5),
    maxNumPlansInFlight: integer(1, 3),
    enablePrefixCaching: !oneIn(4),
    schedulingPolicy: oneIn(2) ? 'priority' : 'fcfs',
    longPrefillTokenThreshold: oneIn(2) ? 0 : integer(1, maxNumBatchedTokens),
  });
}

/** Prompts often share a prefix, and often fill whole blocks. */
function randomPrompt({ integer, oneIn }: Random): number[] {
  const length = oneIn(3) ? 4 * integer(1, 6) : integer(1, 24);
  const kind = integer(0, 2);
  const fresh = integer(0, length);
  return Array.from({ length }, (_, i) => (kind < 2 && i < fresh ? (i * 7 + kind * 3) % vocabSize : integer(0, vocabSize - 1)));
}

function randomRequest(requestId: number, random: Random, hasPriorities: boolean): EngineRequest {
  const { integer, oneIn } = random;
  const promptTokenIds = randomPrompt(random);
  const priority = hasPriorities ? integer(-1, 2) : 0;
  if (oneIn(6)) return { ...logitsRequest(requestId, promptTokenIds), priority };
  if (oneIn(8)) return { ...hiddenRequest(requestId, promptTokenIds, oneIn(2) ? 0 : promptTokenIds.length - 1), priority };
  const params = {
    ...greedyParams,
    temperature: 0.5,
    seed: BigInt(integer(0, 5)),
    numLogprobs: oneIn(3) ? integer(0, 40) : null,
    numPromptLogprobs: oneIn(4) ? integer(0, 3) : null,
  };
  const n = oneIn(3) ? integer(2, 4) : 1;
  return generateRequest(requestId, promptTokenIds, { n, maxTokens: integer(1, 24), eosTokenIds: oneIn(2) ? [7] : [], priority, params });
}

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

/** The part of a whole outcome that an aborted request had received. */
function cutTo(whole: Outcome, found: Outcome): Outcome {
  const cut = <T>(all: readonly T[], part: readonly T[]) => all.slice(0, part.length);
  const samples = whole.samples.map((sample, i): SampleOutcome => {
    const { tokenIds, logprobs, finishReason } = found.samples[i] as SampleOutcome;
    if (finishReason !== null) return sample;
    return { tokenIds: cut(sample.tokenIds, tokenIds), logprobs: cut(sample.logprobs, logprobs), finishReason };
  });
  return { ...whole, samples, promptLogprobs: cut(whole.promptLogprobs, found.promptLogprobs), rows: cut(whole.rows, found.rows) };
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
