/** Sampling parameters, validated and completed with defaults before anything is scheduled. */
import { randomInt } from 'node:crypto';
import { boolean, type Check, checked, integerIn, isObject, numberIn, numberWhere, orNull, unknownField } from '../../protocol/checks.ts';
import { unexpected } from '../../protocol/errors.ts';
import type { TokenIds } from './prompt.ts';
import { integerFrom, logitBias, maxInt32, refuse, seed, texts, tokenIds } from './sampling-checks.ts';

/** How to choose tokens and when to stop. Every field is optional; an unknown one is refused. */
export interface SamplingParams {
  /** Softmax temperature: 0 = greedy, else 1e-6 … 1e6, where fp32 keeps logits distinct and finite. Default 1. */
  readonly temperature?: number | undefined;
  /** Number of likeliest tokens to keep; 0 or -1 = all. Default 0. */
  readonly topK?: number | undefined;
  /** Probability mass of the likeliest tokens to keep, in (0, 1]. Default 1. */
  readonly topP?: number | undefined;
  /** Min probability of a token to keep, as a fraction of the likeliest token's, in [0, 1]. Default 0. */
  readonly minP?: number | undefined;
  /** Penalty subtracted from the logit of each token in the output, in [-2, 2]. Default 0. */
  readonly presencePenalty?: number | undefined;
  /** Penalty subtracted from a token's logit for each occurrence in the output, in [-2, 2]. Default 0. */
  readonly frequencyPenalty?: number | undefined;
  /** Divisor of logits above 0, factor of others, for tokens of prompt and output; 1e-6 … 1e6. Default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** Bias added to the logit of each given token id, in [-100, 100]. Default none. */
  readonly logitBias?: Readonly<Record<string, number>> | ReadonlyMap<number, number> | undefined;
  /** The only tokens that may be drawn. Default all. */
  readonly allowedTokenIds?: TokenIds | undefined;
  /** Words that are never completed, in their tokenizations with and without a leading space. Default none. */
  readonly badWords?: readonly string[] | undefined;
  /** Min tokens to generate before one may end the text, 0 … maxTokens. Default 0. */
  readonly minTokens?: number | undefined;
  /** Max tokens to generate, at least 1. Default 16. */
  readonly maxTokens?: number | undefined;
  /** Stop strings, of output or special tokens; part of the output only with `includeStopStrInOutput`. Default none. */
  readonly stop?: string | readonly string[] | undefined;
  /** Stop tokens, besides the model's end-of-sequence tokens. Default none. */
  readonly stopTokenIds?: TokenIds | undefined;
  /** Whether the text includes the stop string or token that ended it. Default false. */
  readonly includeStopStrInOutput?: boolean | undefined;
  /** Whether to continue past end-of-sequence tokens. Default false. */
  readonly ignoreEos?: boolean | undefined;
  /** Random seed, 0 … 2^64 - 1; drawn and reported back when absent. */
  readonly seed?: number | bigint | undefined;
  /** Continuations per prompt, 1 … 128. Default 1. */
  readonly n?: number | undefined;
  /** Number of top log-probabilities per position, besides its own token's, 0 … 20; null = none. Default null. */
  readonly logprobs?: number | null | undefined;
  /** The same for the tokens of the prompt. Default null. */
  readonly promptLogprobs?: number | null | undefined;
  /** Whether special tokens are omitted from the text. Default true. */
  readonly skipSpecialTokens?: boolean | undefined;
}

/** A parameter's check, and its default where neither call nor model sets it. */
interface Row<T> {
  readonly check: Check<T>;
  readonly absent: () => T;
}

const row = <T>(check: Check<T>, absent: () => T): Row<T> => ({ check, absent });

/** Row of each field of `SamplingParams`, which documents them. */
export const samplingRows = {
  temperature: row(
    numberWhere('0 or a number from 1e-6 to 1e6', (value) => value === 0 || (value >= 1e-6 && value <= 1e6)),
    () => 1,
  ),
  topK: row({ expected: 'an integer of at least -1', read: readTopK }, () => 0),
  // Native computes in fp32: a mass that rounds to 0 would keep nothing.
  topP: row(
    numberWhere('a number above 0 and at most 1', (value) => Math.fround(value) > 0 && value <= 1),
    () => 1,
  ),
  minP: row(numberIn(0, 1), () => 0),
  presencePenalty: row(numberIn(-2, 2), () => 0),
  frequencyPenalty: row(numberIn(-2, 2), () => 0),
  repetitionPenalty: row(numberIn(1e-6, 1e6), () => 1),
  logitBias: row(logitBias, () => []),
  allowedTokenIds: row(tokenIds(1), () => null),
  badWords: row(
    texts('an array of well-formed strings that are more than spaces', (text) => text.trim() !== ''),
    () => [],
  ),
  minTokens: row(integerFrom(0), () => 0),
  maxTokens: row(integerFrom(1), () => 16),
  stop: row(
    texts('a non-empty, well-formed string or an array of such', (text) => text !== '', true),
    () => [],
  ),
  stopTokenIds: row(tokenIds(0), () => []),
  includeStopStrInOutput: row(boolean, () => false),
  ignoreEos: row(boolean, () => false),
  seed: row(seed, drawSeed),
  n: row(integerIn(1, 128), () => 1),
  logprobs: row(orNull(integerIn(0, 20)), () => null),
  promptLogprobs: row(orNull(integerIn(0, 20)), () => null),
  skipSpecialTokens: row(boolean, () => true),
} satisfies Record<keyof SamplingParams, Row<unknown>>;

type Rows = typeof samplingRows;
/** Complete sampling parameters, as their checks read them; `topK` 0 and `allowedTokenIds` null = all. */
export type ResolvedSamplingParams = { readonly [Name in keyof Rows]: ReturnType<Rows[Name]['absent']> };

/** -1 = 0 = all. */
function readTopK(value: unknown): number | undefined {
  const count = integerIn(-1, maxInt32).read(value);
  return count === undefined ? undefined : Math.max(0, count);
}

/**
 * Validates sampling parameters and fills in defaults.
 * @param defaults - the model's, for fields that the caller leaves out
 * @throws NdsError `ERR_REQUEST` naming the field that is unknown, of a wrong type or out of range.
 */
export function resolveSamplingParams(params: unknown = {}, defaults: SamplingParams = {}): ResolvedSamplingParams {
  if (!isObject(params)) throw unexpected('ERR_REQUEST', 'an object of sampling parameters', null, params);
  const names = { plural: 'sampling parameters', knowsForeign: true };
  for (const key of Object.keys(params)) {
    if (!Object.hasOwn(samplingRows, key)) throw unknownField(key, Object.keys(samplingRows), names, 'ERR_REQUEST');
  }
  const given: Record<string, unknown> = { ...params };
  const preferred: Record<string, unknown> = { ...defaults };
  const resolved = Object.fromEntries(
    Object.entries<Row<unknown>>(samplingRows).map(([name, { check, absent }]) => {
      const value = given[name] === undefined ? preferred[name] : given[name];
      return [name, value === undefined ? absent() : checked(value, check, name, 'ERR_REQUEST')];
    }),
  ) as unknown as ResolvedSamplingParams;
  const { minTokens, maxTokens } = resolved;
  if (minTokens > maxTokens) throw refuse('minTokens', `an integer of at most maxTokens = ${maxTokens}`, minTokens);
  return resolved;
}

/** A 48-bit seed: a number holds it exactly, so that it survives JSON. */
function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}
