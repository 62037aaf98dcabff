/** `--speculative-config JSON`: both spellings of names, and refusals. */
import t from 'tap';
import { describeOutput, describeSpeculation } from '../../../bin/commands/generate-output.ts';
import { speculativeConfig } from '../../../bin/commands/speculative-option.ts';
import { RequestOutput } from '../../../rank/request/request-output.ts';
import type { SpeculationStats } from '../../../rank/speculative/counts.ts';

const where = '--speculative-config';
const vllm = {
  method: 'draft_model',
  model: 'some/folder',
  num_speculative_tokens: 3,
  adaptive_k: false,
  rejection_sample_method: 'block',
  draft_sample_method: 'greedy',
  draft_tensor_parallel_size: 2,
  prompt_lookup_min: 2,
  prompt_lookup_max: 4,
  suffix_decoding_max_tree_depth: 24,
  suffix_decoding_max_spec_factor: 1.5,
  suffix_decoding_min_token_prob: 0.1,
  suffix_decoding_max_cached_requests: 100,
};
const ours = {
  method: 'draft_model',
  model: 'some/folder',
  numSpeculativeTokens: 3,
  adaptiveK: false,
  rejectionSampleMethod: 'block',
  draftSampleMethod: 'greedy',
  draftTensorParallelSize: 2,
  promptLookupMin: 2,
  promptLookupMax: 4,
  suffixDecodingMaxTreeDepth: 24,
  suffixDecodingMaxSpecFactor: 1.5,
  suffixDecodingMinTokenProb: 0.1,
  suffixDecodingMaxCachedRequests: 100,
};

t.test("vLLM's names and ours", async (t) => {
  t.same(speculativeConfig(JSON.stringify(vllm), where), ours);
  t.same(speculativeConfig(JSON.stringify(ours), where), ours);
  t.same(speculativeConfig('{"method": ["ngram", "suffix"], "adaptive_k": true, "numSpeculativeTokens": 5}', where), {
    method: ['ngram', 'suffix'],
    adaptiveK: true,
    numSpeculativeTokens: 5,
  });
});

t.test('what is no configuration is refused by name', async (t) => {
  const refused: [string, RegExp][] = [
    ['', /Expected JSON for --speculative-config but received ""/],
    ['{"model": }', /Expected JSON for --speculative-config/],
    ['[]', /Expected a JSON object for --speculative-config but received "\[\]"/],
    ['null', /Expected a JSON object/],
    ['"ngram"', /Expected a JSON object/],
    ['{"num_speculative_token": 5}', /received "num_speculative_token" \(did you mean num_speculative_tokens\?\)/],
    ['{"promptLookupMini": 5}', /received "promptLookupMini" \(did you mean prompt_lookup_min\?\)/],
    ['{"constructor": 5}', /received "constructor"/],
    ['{"__proto__": 5}', /received "__proto__"/],
    ['{"adaptive_k": true, "adaptiveK": true}', /one spelling of adaptive_k/],
    ['{"num_speculative_tokens": 0}', /an integer from 1 to 32 .*numSpeculativeTokens/],
    ['{"rejection_sample_method": "strict"}', /'coupled' or 'standard' or 'block'/],
    ['{"adaptive_k": 1}', /true or false .*adaptiveK/],
  ];
  for (const [text, message] of refused) t.throws(() => speculativeConfig(text, where), { code: 'ERR_USAGE', message }, text);
});

t.test('what drafts did is said where there were some', async (t) => {
  const speculation = {
    numDrafts: 4,
    numDraftTokens: 12,
    numAcceptedTokens: 6,
    numAcceptedTokensPerPos: [3, 2, 1],
    numStepsByNumDrafts: [0, 0, 0, 4],
    meanAcceptanceLength: 2.5,
    predictedSeconds: 0,
    measuredSeconds: 0,
  };
  t.equal(describeSpeculation(speculation), 'mean acceptance length 2.50, 6 of 12 drafts accepted');
  t.equal(describeSpeculation({ ...speculation, numDraftTokens: 0 }), 'nothing drafted');
  const output = {
    index: 0,
    text: '',
    tokenIds: [1],
    logprobs: null,
    cumulativeLogprob: null,
    finishReason: 'length',
    stopReason: null,
  } as const;
  const describe = (found: SpeculationStats | null) =>
    describeOutput(
      new RequestOutput({
        ...{ prompt: '', promptTokenIds: [], promptLogprobs: null, numCachedTokens: 0, seed: 1 },
        outputs: [{ ...output, speculation: found }],
      }),
      {},
    );
  t.match(describe(speculation), { speculation });
  t.notOk(Object.hasOwn(describe(null) as object, 'speculation'));
});
