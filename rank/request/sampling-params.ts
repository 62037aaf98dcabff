/** Sampling parameters: what a caller may ask for, checked and completed before anything is scheduled. */
import { randomInt } from 'node:crypto';
import { boolean, type Check, checked, integerIn, isObject, numberIn, numberWhere, orNull, unknownField } from '../../protocol/checks.ts';
import { NdsError, unexpected } from '../../protocol/errors.ts';
import { integerFrom, logitBias, maxInt32, refuse, seed, texts, tokenIds } from './sampling-checks.ts';

/** How to choose tokens and when to stop. Every field is optional; an unknown one is refused. */
export interface SamplingParams {
  /** 0 = greedy; else from 1e-6 to 1e6, where single precision keeps logits apart and finite. Default 1. */
  readonly temperature?: number | undefined;
  /** Keep the k likeliest tokens; 0 or -1 = all. Default 0. */
  readonly topK?: number | undefined;
  /** Keep the likeliest tokens up to this probability mass, in (0, 1]. Default 1. */
  readonly topP?: number | undefined;
  /** Keep tokens at least this likely, relative to the likeliest, in [0, 1]. Default 0. */
  readonly minP?: number | undefined;
  /** Taken off the logit of every token of the output, in [-2, 2]. Default 0. */
  readonly presencePenalty?: number | undefined;
  /** Taken off the logit of a token for each time it is in the output, in [-2, 2]. Default 0. */
  readonly frequencyPenalty?: number | undefined;
  /** Divides logits above 0, and multiplies others, of every token of prompt and output; from 1e-6 to 1e6. Default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** What is added to the logits of some token ids, each in [-100, 100]. Default none. */
  readonly logitBias?: Readonly<Record<string, number>> | ReadonlyMap<number, number> | undefined;
  /** The only tokens that may be drawn. Default all. */
  readonly allowedTokenIds?: TokenIds | undefined;
  /** Texts that are never completed where a word begins: as the tokenizer writes them first and after a space. Default none. */
  readonly badWords?: readonly string[] | undefined;
  /** Tokens to generate before one that ends the text may come, 0 … maxTokens. Default 0. */
  readonly minTokens?: number | undefined;
  /** Most tokens to generate, at least 1. Default 16. */
  readonly maxTokens?: number | undefined;
  /** Text at which to stop; part of the output only with `includeStopStrInOutput`. */
  readonly stop?: string | readonly string[] | undefined;
  /** Tokens at which to stop, beside those of the model. Default none. */
  readonly stopTokenIds?: TokenIds | undefined;
  /** Whether the text ends with the stop string or token that was found. Default false. */
  readonly includeStopStrInOutput?: boolean | undefined;
  /** Whether to go on after an end-of-sequence token. Default false. */
  readonly ignoreEos?: boolean | undefined;
  /** Integer from 0 to 2^64 - 1; drawn and reported back when absent. */
  readonly seed?: number | bigint | undefined;
  /** Continuations of each prompt, 1 … 128. Default 1. */
  readonly n?: number | undefined;
  /** Likeliest tokens, 0 … 20, to report with their log-probabilities beside that of each token; null = none. Default null. */
  readonly logprobs?: number | null | undefined;
  /** The same for the tokens of the prompt. Default null. */
  readonly promptLogprobs?: number | null | undefined;
  /** Whether special tokens are left out of the text. Default true. */
  readonly skipSpecialTokens?: boolean | undefined;
}

type TokenIds = readonly number[] | Int32Array | Uint32Array;

/** A parameter's check, and its value where neither the call nor the model gives one. */
interface Row<T> {
  readonly check: Check<T>;
  readonly absent: () => T;
}

const row = <T>(check: Check<T>, absent: () => T): Row<T> => ({ check, absent });

/** Of each parameter its row; the fields are those of `SamplingParams`, which says what they mean. */
export const samplingRows = {
  temperature: row(
    numberWhere('0 or a number from 1e-6 to 1e6', (value) => value === 0 || (value >= 1e-6 && value <= 1e6)),
    () => 1,
  ),
  topK: row({ expected: 'an integer of at least -1', read: readTopK }, () => 0),
  // Single precision is what native computes with: a mass that rounds to 0 would keep nothing.
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
/** Sampling parameters with nothing left open: as their checks read them, `topK` 0 and `allowedTokenIds` null for all. */
export type ResolvedSamplingParams = { readonly [Name in keyof Rows]: ReturnType<Rows[Name]['absent']> };

/** -1 = 0 = all. */
function readTopK(value: unknown): number | undefined {
  const count = integerIn(-1, maxInt32).read(value);
  return count === undefined ? undefined : Math.max(0, count);
}

/**
 * Checks sampling parameters and fills in what is absent.
 * @param defaults - what a model prefers where the caller says nothing
 * @throws NdsError `ERR_REQUEST` naming the field that is unknown, of a wrong type or out of range.
 */
export function resolveSamplingParams(params: unknown = {}, defaults: SamplingParams = {}): ResolvedSamplingParams {
  if (!isObject(params)) throw unexpected('ERR_REQUEST', 'an object of sampling parameters', null, params);
  for (const key of Object.keys(params)) if (!Object.hasOwn(samplingRows, key)) throw unknownParameter(key);
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

function unknownParameter(key: string): NdsError {
  const camelCase = key.replace(/_[a-z]/g, (match) => match.slice(1).toUpperCase());
  if (camelCase !== key && Object.hasOwn(samplingRows, camelCase)) {
    return new NdsError('ERR_REQUEST', `Expected the sampling parameter ${camelCase}, in camel case, but received '${key}'`);
  }
  return unknownField(key, Object.keys(samplingRows), 'sampling parameters', 'ERR_REQUEST');
}

/** A seed that a plain number holds, so that it can be reported and given back through JSON. */
function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}
