/** The option `speculativeConfig`, validated, with vLLM's names and defaults. */
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
import { type DraftRule, draftRules, type WeightQuantization, weightQuantizations } from '../../protocol/messages.ts';
import { longestNgram, type NgramOptions } from './proposers/ngram.ts';
import { type SuffixOptions, suffixDefaults } from './proposers/suffix.ts';

export const speculativeMethods = ['draft_model', 'ngram', 'suffix'] as const;
/** Source of drafts: a smaller model, or the text itself by prompt lookup or suffix decoding. */
export type SpeculativeMethod = (typeof speculativeMethods)[number];

/** How tokens are drafted, which the target verifies in one pass. Fields are optional unless they say otherwise. */
export interface SpeculativeConfig extends Partial<NgramOptions>, Partial<SuffixOptions> {
  /** Method, or several, the better offer of which is taken. Default `draft_model` with a `model`; required without. */
  readonly method?: SpeculativeMethod | readonly SpeculativeMethod[] | undefined;
  /** The draft model, named as in `LLM.load`. It must have the target's tokenizer; required for `draft_model`. */
  readonly model?: string | undefined;
  /** Weights of the draft model, as `quantization` of the load; its own needs a `model`. Default: the target's. */
  readonly quantization?: WeightQuantization | undefined;
  /** Max drafts per request and step, 1 … 32. Default 5. */
  readonly numSpeculativeTokens?: number | undefined;
  /** Whether each step picks the number of drafts by cost and acceptance; else `numSpeculativeTokens`. Default true. */
  readonly adaptiveK?: boolean | undefined;
  /**
   * Accept rule. `coupled` (default): a draft is accepted if the target draws it with the same noise, so that tokens
   * are the same with and without speculation. `standard`, `block`: rejection sampling by both models' probabilities,
   * so that the distribution is the target's, but tokens are the same only for the same numbers of drafts.
   */
  readonly rejectionSampleMethod?: DraftRule | undefined;
  /** How the draft model samples: `probabilistic` (default) by the request's parameters, `greedy` the top token. */
  readonly draftSampleMethod?: 'probabilistic' | 'greedy' | undefined;
  /** Ranks that the draft model is sharded over: 1 (default) = each holds all of it, without communication; or all. */
  readonly draftTensorParallelSize?: number | undefined;
}

/** The same with defaults filled in. */
export interface ResolvedSpeculativeConfig extends NgramOptions, SuffixOptions {
  readonly methods: readonly SpeculativeMethod[];
  readonly model: string | null;
  /** Of the draft model. */
  readonly quantization: WeightQuantization;
  readonly numSpeculativeTokens: number;
  readonly adaptiveK: boolean;
  readonly rejectionSampleMethod: DraftRule;
  readonly draftSampleMethod: 'probabilistic' | 'greedy';
  readonly draftTensorParallelSize: number;
}

/** Max drafts per step. Every row of a verification is computed, accepted or not: more were never worth it. */
const mostSpeculativeTokens = 32;

/** Check of each field. */
const checks: Readonly<Record<keyof Required<SpeculativeConfig>, Check<unknown>>> = {
  method: where(`${speculativeMethods.map((name) => `'${name}'`).join(', ')} or a list of them`, isMethods),
  model: textFor('the name or folder of a model'),
  quantization: oneOf(...weightQuantizations),
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

/** @throws NdsError `ERR_USAGE` naming the field that is unknown, of a wrong type or out of range. */
export function checkSpeculativeConfig(config: unknown): SpeculativeConfig {
  if (!isObject(config)) throw unexpected('ERR_USAGE', 'an object', 'speculativeConfig', config);
  checkFields(config, checks, { plural: 'fields of speculativeConfig', prefix: 'speculativeConfig.' }, 'ERR_USAGE');
  return config;
}

/**
 * @param quantization - the target's
 * @throws NdsError `ERR_USAGE` for fields that do not fit together, or do not fit `worldSize` ranks.
 */
export function resolveSpeculativeConfig(
  config: SpeculativeConfig,
  worldSize: number,
  quantization: WeightQuantization,
): ResolvedSpeculativeConfig {
  const { model = null, promptLookupMin, promptLookupMax } = config;
  const method = config.method ?? (model === null ? undefined : 'draft_model');
  if (method === undefined) throw refuse('method', checks.method.expected, undefined);
  const list = typeof method === 'string' ? [method] : method;
  if (list.includes('draft_model') !== (model !== null)) {
    throw refuse('model', list.includes('draft_model') ? `a folder for 'draft_model'` : `none without 'draft_model'`, config.model);
  }
  if (config.quantization !== undefined && model === null) throw refuse('quantization', 'none without a model', config.quantization);
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
    quantization: config.quantization ?? quantization,
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
