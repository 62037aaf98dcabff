/** Options for sampling and log-probabilities; `ndsrun chat` takes those of one answer. */
import type { OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { flag, integer, number, text } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { SamplingParams } from '../../rank/index.ts';

/** The rank checks ranges. */
export const anyInteger = integer(Number.MIN_SAFE_INTEGER);
const tokenIds = { repeats: true, parse: (value: string, where: string) => value.split(',').map((id) => anyInteger(id, where)) } as const;
const texts = { repeats: true, parse: (value: string, where: string): readonly string[] => [text(value, where)] } as const;

/** What is set most; `max-tokens` has another default in each command. */
export const drawSpecs = {
  temperature: { value: 'T', parse: number, help: "0 = greedy (default: the model's, else 1)" },
  'top-k': { value: 'K', parse: anyInteger, help: "keep the K likeliest tokens; 0 = all (default: the model's, else 0)" },
  'top-p': { value: 'P', parse: number, help: "keep the likeliest tokens up to this mass (default: the model's, else 1)" },
  'min-p': { value: 'P', parse: number, help: "keep tokens this likely, relative to the likeliest (default: the model's, else 0)" },
  seed: { value: 'N', parse: seed, help: 'integer from 0 to 2^64 - 1 (default: drawn)' },
  stop: { value: 'TEXT', ...texts, help: 'where to stop; may be given several times' },
  'ignore-eos': { value: null, parse: flag, help: 'go on after an end-of-sequence token' },
} satisfies Record<string, OptionSpec<unknown>>;

/** The sampling parameters that these stand for; the seed is apart, as JSON numbers are not exact at 64 bits. */
export function drawOf(options: OptionValues<typeof drawSpecs>): SamplingParams {
  return {
    temperature: options.temperature,
    topK: options['top-k'],
    topP: options['top-p'],
    minP: options['min-p'],
    stop: options.stop,
    ignoreEos: options['ignore-eos'],
  };
}

export const samplingSpecs = {
  'presence-penalty': { value: 'P', parse: number, help: 'lower the logits of tokens of the output, -2 to 2 (default: 0)' },
  'frequency-penalty': { value: 'P', parse: number, help: 'lower them for each time they came, -2 to 2 (default: 0)' },
  'repetition-penalty': { value: 'R', parse: number, help: 'divide the logits of tokens of prompt and output (default: 1)' },
  'logit-bias': {
    value: 'ID=BIAS',
    repeats: true,
    parse: bias,
    help: 'add to the logit of a token, -100 to 100; may be given several times',
  },
  'allowed-token-ids': { value: 'IDS', ...tokenIds, help: 'draw no other tokens, e.g. 1,2,3' },
  'bad-words': { value: 'TEXT', ...texts, help: 'never complete this text; may be given several times' },
  'min-tokens': { value: 'N', parse: anyInteger, help: 'fewest tokens to generate (default: 0)' },
  'stop-token-ids': { value: 'IDS', ...tokenIds, help: 'tokens at which to stop, e.g. 1,2,3' },
  'include-stop-str-in-output': { value: null, parse: flag, help: 'keep the stop string at the end of the text' },
  n: { value: 'N', parse: anyInteger, help: 'continuations of the prompt (default: 1)' },
  logprobs: { value: 'N', parse: anyInteger, help: 'with --json: log-probability of each token, and of the N likeliest' },
  'prompt-logprobs': { value: 'N', parse: anyInteger, help: 'with --json: the same for the tokens of the prompt' },
  'no-skip-special-tokens': { value: null, parse: flag, help: 'print special tokens too' },
} satisfies Record<string, OptionSpec<unknown>>;

/**
 * The sampling parameters that these options stand for.
 * @throws NdsError `ERR_USAGE` for log-probabilities without `--json`.
 */
export function samplingOf(options: OptionValues<typeof samplingSpecs>, json: boolean): SamplingParams {
  const { logprobs, 'prompt-logprobs': promptLogprobs, 'no-skip-special-tokens': noSkip, 'logit-bias': biases } = options;
  if ((logprobs !== undefined || promptLogprobs !== undefined) && !json) {
    throw new NdsError('ERR_USAGE', 'Expected --json with --logprobs or --prompt-logprobs, which are no text, but received none');
  }
  return {
    presencePenalty: options['presence-penalty'],
    frequencyPenalty: options['frequency-penalty'],
    repetitionPenalty: options['repetition-penalty'],
    logitBias: biases === undefined ? undefined : biasesById(biases),
    allowedTokenIds: options['allowed-token-ids'],
    badWords: options['bad-words'],
    minTokens: options['min-tokens'],
    stopTokenIds: options['stop-token-ids'],
    includeStopStrInOutput: options['include-stop-str-in-output'],
    n: options.n,
    logprobs,
    promptLogprobs,
    skipSpecialTokens: noSkip === undefined ? undefined : !noSkip,
  };
}

/** In decimal. */
function seed(value: string, where: string): string {
  if (!/^\d+$/.test(value) || BigInt(value) >= 2n ** 64n) {
    throw new NdsError('ERR_USAGE', `Expected an integer from 0 to 2^64 - 1 for ${where} but received "${value}"`);
  }
  return value;
}

type Bias = { readonly id: number; readonly bias: number };

function bias(value: string, where: string): readonly Bias[] {
  const [, id, added] = /^(\d+)=(.+)$/.exec(value) ?? [];
  if (id === undefined || added === undefined) throw new NdsError('ERR_USAGE', `Expected ID=BIAS for ${where} but received "${value}"`);
  return [{ id: Number(id), bias: number(added, where) }];
}

function biasesById(biases: readonly Bias[]): Record<string, number> {
  const byId: Record<string, number> = {};
  for (const { id, bias } of biases) {
    if (Object.hasOwn(byId, id)) throw new NdsError('ERR_USAGE', `Expected one --logit-bias for token ${id} but received several`);
    byId[id] = bias;
  }
  return byId;
}
