/** `ndsrun bench accuracy MODEL`: how far quantized weights and KV caches are from the model as stored, on a text. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CommandShape, OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { integer, listOf, oneOf, text } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import { kvCacheDtypes, type WeightQuantization, weightQuantizations } from '../../protocol/messages.ts';
import { packageRoot } from '../../protocol/package-root.ts';
import type { LLMOptions } from '../../rank/index.ts';
import { type Outputs, outputSpecs, outputsOf } from '../bench/output.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { deviceSpecs } from './device-options.ts';
import { announceLoad, isOtherNode, launchRanks } from './launch-ranks.ts';
import { loadOf, loadSpecs } from './load-options.ts';
import { resolveForRanks } from './resolve-models.ts';

const kvCaches = ['auto', ...kvCacheDtypes] as const;

/** What is compared with the model as stored, whose KV cache is `auto`. */
export interface Variant {
  readonly quantization: WeightQuantization;
  readonly kvCacheDtype: (typeof kvCaches)[number];
}

/** Parameters of the ranks. */
export interface BenchAccuracyRequest {
  readonly model: string;
  readonly load: LLMOptions;
  readonly variants: readonly Variant[];
  readonly textFile: string;
  /** Null = 512, or what the model takes. */
  readonly windowLen: number | null;
  /** Null = all of the text. */
  readonly maxTokens: number | null;
  readonly outputs: Outputs;
}

const specs = {
  formats: {
    value: 'FORMAT,FORMAT',
    parse: listOf(oneOf(...weightQuantizations)),
    help: 'weights: none, expand, int8, int4 (default: int8,int4)',
  },
  'kv-cache-dtype': {
    value: 'TYPE,TYPE',
    parse: listOf(oneOf(...kvCaches)),
    help: 'KV caches: auto, float32, bfloat16, int8, each with each format (default: auto)',
  },
  text: { value: 'FILE', parse: text, help: 'a text to compute on (default: one of some 900 tokens)' },
  'max-tokens': { value: 'N', parse: integer(2), help: 'tokens of the text (default: all)' },
  window: { value: 'N', parse: integer(2), help: 'tokens that see one another (default: 512, or what the model takes)' },
  dtype: loadSpecs.dtype,
  ...deviceSpecs,
  'num-threads': loadSpecs['num-threads'],
  ...outputSpecs,
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs & typeof gangSpecs> = {
  usage: 'ndsrun bench accuracy [options] MODEL',
  description:
    'Compares quantized weights and KV caches with the model as stored, by the logits of a text: perplexity, KL divergence, how often the most probable token ' +
    'is the same, and the error of logits. Models are loaded one after another.',
  examples: ['ndsrun bench accuracy MODEL', 'ndsrun bench accuracy MODEL --formats expand,int8 --kv-cache-dtype auto,int8'],
  specs: { ...specs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function benchAccuracy(args: readonly string[]): Promise<number> {
  if (args.some((arg) => arg === '--shape' || arg.startsWith('--shape=')))
    throw new NdsError('ERR_USAGE', 'Expected MODEL but received --shape: the accuracy of random weights says nothing');
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [model, extra] = operands;
  if (model === undefined || extra !== undefined)
    throw new NdsError('ERR_USAGE', `Expected MODEL but received ${operands.length} operands`);
  const request = requestOf(model, options);
  if (!isOtherNode(options) && !existsSync(request.textFile))
    throw new NdsError('ERR_NOT_FOUND', `Expected a file for --text but ${request.textFile} does not exist`);
  const resolved = await resolveForRanks(model, options);
  announceLoad(model, request.outputs.quiet || (options['dry-run'] ?? false));
  return launchRanks('bin/commands/bench-accuracy-rank', { ...options, model }, [JSON.stringify({ ...request, model: resolved })]);
}

function requestOf(model: string, options: OptionValues<typeof specs>): BenchAccuracyRequest {
  const { 'kv-cache-dtype': kvDtypes, ...others } = options;
  return {
    model,
    load: loadOf(others),
    variants: variantsOf(options.formats ?? ['int8', 'int4'], kvDtypes ?? ['auto']),
    textFile: options.text === undefined ? join(packageRoot(), 'examples', 'texts', 'lighthouse.txt') : resolve(options.text),
    windowLen: options.window ?? null,
    maxTokens: options['max-tokens'] ?? null,
    outputs: outputsOf(options),
  };
}

/** Each format with each KV cache but the reference itself. @throws NdsError `ERR_USAGE` where that is all. */
function variantsOf(formats: readonly WeightQuantization[], kvDtypes: readonly Variant['kvCacheDtype'][]): Variant[] {
  const all = formats.flatMap((quantization) => kvDtypes.map((kvCacheDtype) => ({ quantization, kvCacheDtype })));
  const variants = all.filter(({ quantization, kvCacheDtype }) => quantization !== 'expand' || kvCacheDtype !== 'auto');
  if (variants.length > 0) return variants;
  throw new NdsError('ERR_USAGE', 'Expected a format or KV cache to compare but received --formats expand, what others are compared with');
}
