/** Random engine options and requests over the toy model. */
import type { EngineOptions } from '../../rank/engine/executor.ts';
import { type EngineRequest, greedyParams } from '../../rank/scheduler/request.ts';
import { resolveSpeculativeConfig, type SpeculativeConfig, type SpeculativeMethod } from '../../rank/speculative/config.ts';
import { makeOptions, type Outcome, type SampleOutcome, vocabSize } from './engine-run.ts';
import { randomIntegers } from './random.ts';
import { generateRequest, hiddenRequest, logitsRequest } from './requests.ts';

export function makeRandom(seed: number) {
  const below = randomIntegers(seed);
  const integer = (low: number, high: number) => low + below(high - low + 1);
  return { integer, oneIn: (count: number) => below(count) === 0 };
}
export type Random = ReturnType<typeof makeRandom>;

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
  return { speculativeConfig: resolveSpeculativeConfig(config, 1, 'none'), draftLimits };
}

export function randomOptions({ integer, oneIn }: Random) {
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

export function randomRequest(requestId: number, random: Random, hasPriorities: boolean): EngineRequest {
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

/** The part of a whole outcome that an aborted request had received. */
export function cutTo(whole: Outcome, found: Outcome): Outcome {
  const cut = <T>(all: readonly T[], part: readonly T[]) => all.slice(0, part.length);
  const samples = whole.samples.map((sample, i): SampleOutcome => {
    const { tokenIds, logprobs, finishReason } = found.samples[i] as SampleOutcome;
    if (finishReason !== null) return sample;
    return { tokenIds: cut(sample.tokenIds, tokenIds), logprobs: cut(sample.logprobs, logprobs), finishReason };
  });
  return { ...whole, samples, promptLogprobs: cut(whole.promptLogprobs, found.promptLogprobs), rows: cut(whole.rows, found.rows) };
}
