/** Requests that go on from what they have reported before: what is refused, and a new engine that goes on in mid-text. */
import t from 'tap';
import type { EngineOptions } from '../../../rank/engine/executor.ts';
import { checkReported } from '../../../rank/scheduler/reported.ts';
import { type EngineRequest, type GenerateRequest, greedyParams, type Reported } from '../../../rank/scheduler/request.ts';
import { makeOptions, type Outcome, runAlone, startEngine, vocabSize } from '../../helpers/engine-run.ts';
import { generateRequest, hiddenRequest, logitsRequest } from '../../helpers/requests.ts';

const prompt = [1, 2, 3, 4, 5, 6];
const limits = makeOptions({ maxModelLen: 14 });
const sample = (...outputTokenIds: number[]) => ({ outputTokenIds, numCachedTokens: 0 });

t.test('counts and tokens that no unfinished request can have reported are refused', async (t) => {
  const params = { ...greedyParams, numPromptLogprobs: 0 };
  const two = generateRequest(4, prompt, { n: 2, maxTokens: 9, eosTokenIds: [7], stopTokenIds: [8], params });
  const wrong: [EngineRequest, Reported, RegExp][] = [
    [two, { numRows: 0, samples: [] }, /Expected 2 reported samples for request 4 but received 0/],
    [two, { numRows: 5, samples: [null, null] }, /Expected an unfinished sample for request 4 but received none/],
    [two, { numRows: 6, samples: [sample(), null] }, /Expected 0 to 5 reported rows of the prompt for request 4 but received 6/],
    [two, { numRows: 4, samples: [null, sample()] }, /Expected 5 to 5 reported rows/],
    [two, { numRows: 0.5, samples: [sample(), null] }, /0 to 5 reported rows .* received 0.5/],
    [two, { numRows: 0, samples: [sample(1, 2, 3, 4, 5, 6, 9, 9), sample()] }, /at most 7 reported tokens of an unfinished sample/],
    [two, { numRows: 0, samples: [sample(1, vocabSize), sample()] }, /reported token ids from 0 to 30 .* received 31/],
    [two, { numRows: 0, samples: [sample(), sample(1, -1)] }, /reported token ids from 0 to 30 .* received -1/],
    [two, { numRows: 0, samples: [sample(1, 7, 2), sample()] }, /no token that ends a text .* received token 7/],
    [two, { numRows: 0, samples: [sample(8), sample()] }, /no token that ends a text .* received token 8/],
    [two, { numRows: 0, samples: [{ ...sample(1), numCachedTokens: 6 }, sample()] }, /0 to 5 reported cached tokens .* received 6/],
    [generateRequest(4, prompt), { numRows: 1, samples: [sample()] }, /0 to 0 reported rows/],
    [generateRequest(4, prompt, { maxTokens: 2 }), { numRows: 0, samples: [sample(1, 2)] }, /at most 1 reported tokens/],
    [logitsRequest(4, prompt), { numRows: 6, samples: [] }, /0 to 5 reported rows/],
    [hiddenRequest(4, prompt, 2), { numRows: 4, samples: [] }, /0 to 3 reported rows/],
    [logitsRequest(4, prompt), { numRows: 0, samples: [null] }, /0 reported samples/],
  ];
  for (const [request, reported, message] of wrong) {
    t.throws(() => checkReported({ ...request, reported }, limits), { code: 'ERR_REQUEST', message });
  }
  for (const reported of [
    { numRows: 5, samples: [null, sample(1, 2)] },
    { numRows: 0, samples: [sample(1, 2, 3, 4, 5, 6, 9), sample()] },
  ]) {
    t.doesNotThrow(() => checkReported({ ...two, reported }, limits));
  }
});

/** Outcome of a request that a new engine gets with its first `numTokens` tokens and `numRows` rows. */
async function goOn(request: EngineRequest, reported: Reported, overrides: Partial<EngineOptions>): Promise<Outcome> {
  const { outcomes, post, finished } = startEngine(makeOptions(overrides));
  const others = [generateRequest(90, prompt, { maxTokens: 20 }), logitsRequest(91, prompt)];
  for (const other of others) post(other);
  post({ ...request, reported });
  const outcome = outcomes.get(request.requestId) as Outcome;
  // Samples that have ended get no event.
  for (const [i, found] of outcome.samples.entries()) if (reported.samples[i] === null) found.finishReason = 'stop';
  await finished();
  return outcome;
}

t.test('a new engine goes on after any number of tokens, and reports the rest', async (t) => {
  const params = { ...greedyParams, temperature: 0.7, seed: 3n, numLogprobs: 2, numPromptLogprobs: 1 };
  const request: GenerateRequest = generateRequest(4, prompt, { n: 2, maxTokens: 8, params });
  const whole = runAlone(request, 40);
  for (const overrides of [{}, { enablePrefixCaching: true, maxNumBatchedTokens: 9 }]) {
    for (let count = 0; count < 8; count++) {
      const samples = whole.samples.map(({ tokenIds }, i) => (i === 0 && count === 7 ? null : sample(...tokenIds.slice(0, count))));
      for (const numRows of count === 7 ? [5] : [0, 3, 5]) {
        const found = await goOn(request, { numRows, samples }, overrides);
        found.samples.forEach(({ tokenIds, logprobs, finishReason }, i) => {
          const { [i]: expected } = whole.samples;
          if (samples[i] === null) return t.same(tokenIds, [], 'nothing for a sample that had ended');
          t.same([tokenIds, finishReason], [expected?.tokenIds.slice(count), expected?.finishReason]);
          t.same(logprobs, expected?.logprobs.slice(count));
        });
        t.same(found.promptLogprobs, whole.promptLogprobs.slice(numRows));
      }
    }
  }
});

t.test('rows of logits and hidden states go on after those reported', async (t) => {
  for (const request of [logitsRequest(4, prompt), hiddenRequest(4, prompt, 1)]) {
    const { rows } = runAlone(request, 40);
    const total = request.type === 'logits' ? 6 : 5;
    for (let numRows = 0; numRows < total; numRows++) {
      const found = await goOn(request, { numRows, samples: [] }, { maxNumBatchedTokens: 9 });
      t.same(found.rows, rows.slice((rows.length / total) * numRows));
    }
  }
});
