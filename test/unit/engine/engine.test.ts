/**
 * The engine over a toy model that reads the KV through the block tables: a wrong slot, block or length changes the
 * tokens.
 */
import t from 'tap';
import { NdsError } from '../../../protocol/errors.ts';
import { type GenerateRequest, greedyParams } from '../../../rank/scheduler/request.ts';
import { makeOptions, type Outcome, runAlone, startEngine } from '../../helpers/engine-run.ts';
import { generateRequest as anyRequest, hiddenRequest, logitsRequest } from '../../helpers/requests.ts';

const eosTokenId = 7;

function generateRequest(requestId: number, promptTokenIds: number[], overrides: Partial<GenerateRequest> = {}): GenerateRequest {
  const params = { ...greedyParams, temperature: 0.5, topP: 0.9, minP: 0.1, topK: 3, seed: (BigInt(requestId) << 40n) + 5n };
  return anyRequest(requestId, promptTokenIds, { maxTokens: 6, eosTokenIds: [eosTokenId], params, ...overrides });
}

const tokensOf = (outcome: Outcome | undefined) => outcome?.samples[0]?.tokenIds;

t.test('prompts of one turn share the first step, and the next plan leaves while one runs', async (t) => {
  const { executor, post, finished } = startEngine(makeOptions({ maxNumPlansInFlight: 2 }));
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
  const { outcomes, post, finished } = startEngine(options);
  const request = generateRequest(0, [1, 2, 3], { maxTokens: 100, eosTokenIds: [] });
  post(request);
  await finished();
  t.equal(tokensOf(outcomes.get(0))?.length, 5);
  t.match(outcomes.get(0), runAlone(request, 8));
});

t.test('a request that can never finish is refused and hurts no other', async (t) => {
  const options = makeOptions({ numBlocks: 4, blockSize: 4, maxModelLen: 24 });
  const { outcomes, post, finished } = startEngine(options);
  const fits = generateRequest(0, [1, 2, 3], { maxTokens: 14 });
  post(fits);
  post(generateRequest(1, []));
  post(generateRequest(2, new Array(24).fill(1)));
  const capped = generateRequest(3, [1, 2, 3], { maxTokens: 100, eosTokenIds: [] });
  post(capped);
  post(logitsRequest(4, new Array(17).fill(1)));
  await finished();
  t.match(outcomes.get(0), runAlone(fits, 24), '17 tokens, of which the last is never cached, fill 4 blocks of 4');
  t.match(outcomes.get(3), runAlone(capped, 17), 'the KV cache ends a sequence as maxTokens does');
  for (const [requestId, message] of [
    [1, /at least one prompt token/],
    [2, /prompt of at most 23 tokens \(maxModelLen is 24\) for request 2 but received 24 tokens/],
    [4, /prompt of at most 16 tokens \(all KV blocks/],
  ] as const) {
    t.match(outcomes.get(requestId)?.error, { code: 'ERR_REQUEST', message });
  }
});

t.test('logits come in pieces that respect the limit of rows', async (t) => {
  const { executor, outcomes, post, finished } = startEngine(makeOptions({ maxNumLogitRows: 8 }));
  const promptTokenIds = Array.from({ length: 21 }, (_, i) => i);
  const request = logitsRequest(0, promptTokenIds);
  post(request);
  await finished();
  t.same(
    executor.plans.map(({ logitRows }) => logitRows.length),
    [8, 8, 5],
  );
  t.same(outcomes.get(0), runAlone(request, 40));
});

t.test('hidden states take no LM-head rows and nothing from the prefix cache', async (t) => {
  const { engine, executor, outcomes, post, finished } = startEngine(makeOptions({ maxNumLogitRows: 8, enablePrefixCaching: true }));
  const promptTokenIds = Array.from({ length: 21 }, (_, i) => i);
  const [whole, ...later] = [hiddenRequest(0, promptTokenIds), hiddenRequest(1, promptTokenIds, 20), hiddenRequest(2, [3])] as const;
  post(whole);
  executor.onStep = ({ step }) => {
    if (step === 1) for (const request of later) post(request);
  };
  await finished();
  t.same(
    executor.plans.map(({ hiddenRows, logitRows }) => [hiddenRows.length, logitRows.length]),
    [
      [16, 0],
      [5, 0],
      [0, 0],
      [2, 0],
    ],
  );
  t.equal(engine.stats.numPrefixHitTokens, 0);
  for (const request of [whole, ...later]) t.same(outcomes.get(request.requestId), runAlone(request, 40));
});

t.test('an aborted request frees its slot and blocks for the next plan built', async (t) => {
  const { engine, executor, outcomes, post, finished } = startEngine(makeOptions({ numBlocks: 3, maxNumSeqs: 1, maxNumPlansInFlight: 1 }));
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
  t.equal(tokensOf(outcomes.get(0))?.length, 1, 'what the step in flight brought for it is dropped');
});

t.test('a failed step ends the engine with its cause', async (t) => {
  const { engine, executor, outcomes, post, finished } = startEngine(makeOptions());
  post(generateRequest(0, [1, 2, 3], { eosTokenIds: [] }));
  executor.onStep = ({ step }) => {
    if (step === 2) throw new NdsError('ERR_STEP_TIMEOUT', 'step 2 timed out');
  };
  await t.rejects(finished(), { code: 'ERR_STEP_TIMEOUT', message: 'step 2 timed out' });
  t.match(executor.failure, { code: 'ERR_STEP_TIMEOUT' }, 'the executor hears that no plan follows');
  t.equal(tokensOf(outcomes.get(0))?.length, 2);
  const numPlans = executor.plans.length;
  post(generateRequest(1, [1]));
  await engine.close();
  t.equal(executor.plans.length, numPlans, 'nothing runs any more');
});

t.test('a result that does not match its plan is a failure', async (t) => {
  const { executor, post, finished } = startEngine(makeOptions());
  const execute = executor.execute.bind(executor);
  executor.execute = async (plan) => ({ ...(await execute(plan)), numTokens: new Int32Array(1) });
  post(generateRequest(0, [1, 2, 3]));
  await t.rejects(finished(), { code: 'ERR_PROTOCOL', message: 'Expected 1 to 1 tokens for sequence 0 of the step but received 0' });
});

t.test('closing waits for the plan that runs', async (t) => {
  const { engine, executor, post } = startEngine(makeOptions({ maxNumPlansInFlight: 2 }));
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

t.test('closing does not wait for a plan whose ranks are lost meanwhile', async (t) => {
  const { engine, executor, post } = startEngine(makeOptions());
  let numPlans = 0;
  executor.execute = () => {
    numPlans++;
    return new Promise(() => {});
  };
  post(generateRequest(0, [1, 2, 3]));
  await new Promise(setImmediate);
  const numSent = numPlans;
  t.ok(numSent > 0);
  const closed = engine.close();
  engine.lose();
  await closed;
  engine.resume();
  await new Promise(setImmediate);
  t.equal(numPlans, numSent, 'nothing resumes');
});
