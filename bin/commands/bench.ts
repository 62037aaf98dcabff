/**
 * `ndsrun bench MODEL`: speed of prefill and decode, relative to this machine's memory bandwidth and arithmetic in the
 * same minute.
 */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag, integer, text } from '../../launcher/option-parsers.ts';
import { launchSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { LLMOptions } from '../../rank/index.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { deviceOf, deviceSpecs } from './device-options.ts';
import { announceLoad, launchRanks } from './launch-ranks.ts';
import { quantizationSpec } from './load-options.ts';
import { resolveModels } from './resolve-models.ts';
import { speculativeConfig } from './speculative-option.ts';

/** Parameters of the ranks. */
export interface BenchRequest {
  readonly model: string;
  readonly load: LLMOptions;
  readonly promptLen: number;
  readonly maxTokens: number;
  readonly batchSizes: readonly number[];
  readonly rounds: number;
  readonly json: boolean;
  readonly quiet: boolean;
}

const benchSpecs = {
  'prompt-len': { value: 'N', parse: integer(1), help: 'tokens of the prompt that is prefilled (default: 512, or what the model takes)' },
  'max-tokens': { value: 'N', parse: integer(2), help: 'tokens that each sequence decodes (default: 32)' },
  'batch-sizes': { value: 'N,N', parse: batchSizes, help: 'sequences that decode together (default: 1,8,32)' },
  rounds: { value: 'N', parse: integer(1), help: 'times that everything is measured; medians are shown (default: 3)' },
  dtype: { value: 'TYPE', parse: text, help: 'activations: auto, float32 or bfloat16 (default: auto)' },
  'kv-cache-dtype': { value: 'TYPE', parse: text, help: 'KV cache: auto (that of activations) or int8 (default: auto)' },
  ...quantizationSpec,
  ...deviceSpecs,
  'num-threads': { value: 'N', parse: integer(1), help: 'threads of each rank (default: cores / ranks)' },
  'speculative-config': {
    value: 'JSON',
    parse: speculativeConfig,
    help: 'draft tokens ahead, e.g. {"model":"DRAFT"}; bench spec compares with plain decoding (default: none)',
  },
  json: { value: null, parse: flag, help: 'print one JSON object' },
  quiet: { value: null, parse: flag, help: 'no progress on standard error' },
} satisfies Record<string, OptionSpec<unknown>>;

const { 'no-node': _, ...gangSpecs } = launchSpecs;

const shape: CommandShape<typeof benchSpecs & typeof gangSpecs> = {
  usage: 'ndsrun bench [options] MODEL',
  description:
    'Measures prefill and decode of a model, and the bandwidth and arithmetic of this machine beside them. `ndsrun bench spec` measures ' +
    'speculative decoding, `ndsrun bench kv-utilization` compares ways to allocate KV memory.',
  examples: ['ndsrun bench MODEL --nproc-per-node 2 --batch-sizes 1,16'],
  specs: { ...benchSpecs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function bench(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [model, extra] = operands;
  if (model === undefined || extra !== undefined)
    throw new NdsError('ERR_USAGE', `Expected MODEL but received ${operands.length} operands`);
  const request: BenchRequest = {
    model,
    load: {
      dtype: options.dtype as LLMOptions['dtype'],
      kvCacheDtype: options['kv-cache-dtype'] as LLMOptions['kvCacheDtype'],
      quantization: options.quantization as LLMOptions['quantization'],
      ...deviceOf(options),
      numThreads: options['num-threads'],
      speculativeConfig: options['speculative-config'],
    },
    promptLen: options['prompt-len'] ?? 512,
    maxTokens: options['max-tokens'] ?? 32,
    batchSizes: options['batch-sizes'] ?? [1, 8, 32],
    rounds: options.rounds ?? 3,
    json: options.json ?? false,
    quiet: options.quiet ?? false,
  };
  const resolved = await resolveModels(request, options);
  announceLoad(model, request.quiet || (options['dry-run'] ?? false));
  return launchRanks('bin/commands/bench-rank', { ...options, model }, [JSON.stringify(resolved)]);
}

function batchSizes(value: string, where: string): number[] {
  return value.split(',').map((size) => integer(1, 256)(size, where));
}
