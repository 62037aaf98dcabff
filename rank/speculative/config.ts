/** The option `speculativeConfig`: checked, with vLLM's names and defaults. */
import {
  boolean,
  type Check,
  checkFields,
  integerIn,
  isObject,
  numberIn,
  numberWhere,
  oneOf,
  textFor,
  where,
} from '../../protocol/checks.ts';
import { type NdsError, unexpected } from '../../protocol/errors.ts';
import { type DraftRule, draftRules } from '../../protocol/messages.ts';
import { longestNgram, type NgramOptions } from './proposers/ngram.ts';
import { type SuffixOptions, suffixDefaults } from './proposers/suffix.ts';

export const speculativeMethods = ['draft_model', 'ngram', 'suffix'] as const;
/** Who proposes tokens: a smaller model, or the text itself by prompt lookup or suffix decoding. */
export type SpeculativeMethod = (typeof speculativeMethods)[number];

/** How tokens are drafted ahead of the model, which then judges several in one pass. Fields are optional unless they say otherwise. */
export interface SpeculativeConfig extends Partial<NgramOptions>, Partial<SuffixOptions> {
  /** One method, or several, of which each request takes the better offer. Default: `draft_model` with a `model`; required without. */
  readonly method?: SpeculativeMethod | readonly SpeculativeMethod[] | undefined;
  /** Folder of the draft model, for `draft_model`. It must have the target's tokenizer. */
  readonly model?: string | undefined;
  /** Max drafts per request and step, 1 … 32. Default 5. */
  readonly numSpeculativeTokens?: number | undefined;
  /** Whether each step chooses how many, by their cost and acceptance; else always `numSpeculativeTokens`. Default true. */
  readonly adaptiveK?: boolean | undefined;
  /**
   * Which drafts are accepted. `coupled` (default): those that the target draws itself with the same noise, so that tokens are the same
   * with and without speculation. `standard`, `block`: those that coins accept, by both models' probabilities: text has the right
   * distribution, but the same tokens only for the same numbers of drafts.
   */
  readonly rejectionSampleMethod?: DraftRule | undefined;
  /** How the draft model draws: `probabilistic` (default) as the request says, `greedy` its likeliest token. */
  readonly draftSampleMethod?: 'probabilistic' | 'greedy' | undefined;
  /** Ranks that share the draft model: 1 (default) = every rank has all of it and they exchange nothing, or all of them. */
  readonly draftTensorParallelSize?: number | undefined;
}

/** The same with nothing left open. */
export interface ResolvedSpeculativeConfig extends NgramOptions, SuffixOptions {
  readonly methods: readonly SpeculativeMethod[];
  readonly model: string | null;
  readonly numSpeculativeTokens: number;
  readonly adaptiveK: boolean;
  readonly rejectionSampleMethod: DraftRule;
  readonly draftSampleMethod: 'probabilistic' | 'greedy';
  readonly draftTensorParallelSize: number;
}

/** Rows of a verification are computed in any case: more drafts than this were never worth it. */
const mostSpeculativeTokens = 32;

/** Of each field, what it must be. */
const checks: Readonly<Record<keyof Required<SpeculativeConfig>, Check<unknown>>> = {
  method: where(`${speculativeMethods.map((name) => `'${name}'`).join(', ')} or a list of them`, isMethods),
  model: textFor('the path of a folder'),
  numSpeculativeTokens: integerIn(1, mostSpeculativeTokens),
  adaptiveK: boolean,
  rejectionSampleMethod: oneOf(...draftRules),
  draftSampleMethod: oneOf('probabilistic', 'greedy'),
  draftTensorParallelSize: integerIn(1, 1024),
  promptLookupMin: integerIn(1, longestNgram),
  promptLookupMax: integerIn(1, longestNgram),
  suffixDecodingMaxTreeDepth: integerIn(2, 1000),
  suffixDecodingMaxSpecFactor: numberWhere('a number above 0', (value) => value > 0 && Number.isFinite(value)),
  suffixDecodingMinTokenProb: numberIn(0, 1),
  suffixDecodingMaxCachedRequests: integerIn(0, 2 ** 31 - 1),
};

function isMethods(value: unknown): boolean {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  return (
    list.length > 0 && list.every((name) => speculativeMethods.includes(name as SpeculativeMethod)) && new Set(list).size === list.length
  );
}

/** @throws NdsError `ERR_USAGE` naming the field that is unknown, of a wrong type or out of range, or what is missing beside it. */
export function checkSpeculativeConfig(config: unknown): SpeculativeConfig {
  if (!isObject(config)) throw unexpected('ERR_USAGE', 'an object', 'speculativeConfig', config);
  checkFields(config, checks, { plural: 'fields of speculativeConfig', prefix: 'speculativeConfig.' }, 'ERR_USAGE');
  return config;
}

/** @throws NdsError `ERR_USAGE` for fields that do not fit together, or do not fit `worldSize` ranks. */
export function resolveSpeculativeConfig(config: SpeculativeConfig, worldSize: number): ResolvedSpeculativeConfig {
  const { model = null, promptLookupMin, promptLookupMax } = config;
  const method = config.method ?? (model === null ? undefined : 'draft_model');
  if (method === undefined) throw refuse('method', checks.method.expected, undefined);
  const list = typeof method === 'string' ? [method] : method;
  if (list.includes('draft_model') !== (model !== null)) {
    throw refuse('model', list.includes('draft_model') ? `a folder for 'draft_model'` : `none without 'draft_model'`, config.model);
  }
  const size = config.draftTensorParallelSize ?? 1;
  if (size !== 1 && size !== worldSize) {
    throw refuse('draftTensorParallelSize', worldSize === 1 ? '1' : `1 or ${worldSize}, the number of ranks,`, size);
  }
  const longest = promptLookupMax ?? Math.max(5, promptLookupMin ?? 0);
  const shortest = promptLookupMin ?? Math.min(2, longest);
  if (shortest > longest) throw refuse('promptLookupMin', `at most promptLookupMax = ${longest}`, shortest);
  return {
    methods: list,
    model,
    numSpeculativeTokens: config.numSpeculativeTokens ?? 5,
    adaptiveK: config.adaptiveK ?? true,
    rejectionSampleMethod: config.rejectionSampleMethod ?? 'coupled',
    draftSampleMethod: config.draftSampleMethod ?? 'probabilistic',
    draftTensorParallelSize: size,
    promptLookupMin: shortest,
    promptLookupMax: longest,
    suffixDecodingMaxTreeDepth: config.suffixDecodingMaxTreeDepth ?? suffixDefaults.suffixDecodingMaxTreeDepth,
    suffixDecodingMaxSpecFactor: config.suffixDecodingMaxSpecFactor ?? suffixDefaults.suffixDecodingMaxSpecFactor,
    suffixDecodingMinTokenProb: config.suffixDecodingMinTokenProb ?? suffixDefaults.suffixDecodingMinTokenProb,
    suffixDecodingMaxCachedRequests: config.suffixDecodingMaxCachedRequests ?? suffixDefaults.suffixDecodingMaxCachedRequests,
  };
}

function refuse(name: string, expected: string, value: unknown): NdsError {
  return unexpected('ERR_USAGE', expected, `speculativeConfig.${name}`, value);
}
