/** The option `speculativeConfig`: checked, with vLLM's names and defaults. */
import { describe } from '../../protocol/describe.ts';
import { NdsError } from '../../protocol/errors.ts';
import { type DraftRule, draftRules } from '../../protocol/messages.ts';
import type { NgramOptions } from './proposers/ngram.ts';
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
  /** Most drafts of a request in one step, 1 … 32. Default 5. */
  readonly numSpeculativeTokens?: number | undefined;
  /** Whether each step chooses how many, by what drafts cost and how many stay; else always the most. Default true. */
  readonly adaptiveK?: boolean | undefined;
  /**
   * Which drafts stay. `coupled` (default): those that the target draws itself with the same noise, so that tokens are the same
   * with and without speculation. `standard`, `block`: those that coins keep, by both models' probabilities: text has the right
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

type Check = readonly [expected: string, isRight: (value: unknown) => boolean];

const integer = (minimum: number, maximum: number): Check => [
  `an integer from ${minimum} to ${maximum}`,
  (value) => Number.isSafeInteger(value) && (value as number) >= minimum && (value as number) <= maximum,
];
const number = (expected: string, isRight: (value: number) => boolean): Check => [
  expected,
  (value) => typeof value === 'number' && isRight(value),
];
const choice = (...choices: readonly string[]): Check => [
  choices.map((name) => `'${name}'`).join(' or '),
  (value) => typeof value === 'string' && choices.includes(value),
];

const checks: { readonly [Field in keyof Required<SpeculativeConfig>]: Check } = {
  method: [`${speculativeMethods.map((name) => `'${name}'`).join(', ')} or a list of them`, isMethods],
  model: ['the path of a folder', (value) => typeof value === 'string' && value !== ''],
  numSpeculativeTokens: integer(1, mostSpeculativeTokens),
  adaptiveK: ['true or false', (value) => typeof value === 'boolean'],
  rejectionSampleMethod: choice(...draftRules),
  draftSampleMethod: choice('probabilistic', 'greedy'),
  draftTensorParallelSize: integer(1, 1024),
  promptLookupMin: integer(1, 1000),
  promptLookupMax: integer(1, 1000),
  suffixDecodingMaxTreeDepth: integer(2, 1000),
  suffixDecodingMaxSpecFactor: number('a number above 0', (value) => value > 0 && Number.isFinite(value)),
  suffixDecodingMinTokenProb: number('a number from 0 to 1', (value) => value >= 0 && value <= 1),
  suffixDecodingMaxCachedRequests: integer(0, 2 ** 31 - 1),
};

function isMethods(value: unknown): boolean {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  return (
    list.length > 0 && list.every((name) => speculativeMethods.includes(name as SpeculativeMethod)) && new Set(list).size === list.length
  );
}

/** @throws NdsError `ERR_USAGE` naming the field that is unknown, of a wrong type or out of range, or what is missing beside it. */
export function checkSpeculativeConfig(config: unknown): SpeculativeConfig {
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    throw new NdsError('ERR_USAGE', `Expected an object for speculativeConfig but received ${describe(config)}`);
  }
  for (const [name, value] of Object.entries(config)) {
    if (!Object.hasOwn(checks, name)) {
      const known = Object.keys(checks).join(', ');
      throw new NdsError('ERR_USAGE', `Expected fields of speculativeConfig among ${known} but received '${name}'`);
    }
    const [expected, isRight] = checks[name as keyof typeof checks];
    if (value !== undefined && !isRight(value)) throw refuse(name, expected, value);
  }
  return config;
}

/** @throws NdsError `ERR_USAGE` for fields that do not fit together, or do not fit `worldSize` ranks. */
export function resolveSpeculativeConfig(config: SpeculativeConfig, worldSize: number): ResolvedSpeculativeConfig {
  const { model = null, promptLookupMin, promptLookupMax } = config;
  const method = config.method ?? (model === null ? undefined : 'draft_model');
  if (method === undefined) throw refuse('method', checks.method[0], undefined);
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
    suffixDecodingMaxSpecFactor: config.suffixDecodingMaxSpecFactor ?? 4,
    suffixDecodingMinTokenProb: config.suffixDecodingMinTokenProb ?? suffixDefaults.suffixDecodingMinTokenProb,
    suffixDecodingMaxCachedRequests: config.suffixDecodingMaxCachedRequests ?? suffixDefaults.suffixDecodingMaxCachedRequests,
  };
}

function refuse(name: string, expected: string, value: unknown): NdsError {
  return new NdsError('ERR_USAGE', `Expected ${expected} for speculativeConfig.${name} but received ${describe(value)}`);
}
