/** `ndsrun bench throughput MODEL`: decode tokens per second by batch size, and prefill. */
import type { CommandShape, OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { integer, listOf } from '../../launcher/option-parsers.ts';
import { benchModel, launchedSpecs, type ModelBenchRequest } from '../bench/model-request.ts';
import { parseOrHelp } from '../parse-or-help.ts';

/** Sizes of what is measured, with the batch sizes by default. */
export function sizeSpecs(batchSizes: readonly number[]) {
  return {
    'prompt-len': {
      value: 'N',
      parse: integer(0),
      help: 'tokens of the prompt that is prefilled; 0 = no prefill (default: 512, or what the model takes)',
    },
    'max-tokens': { value: 'N', parse: integer(1), help: 'tokens that each sequence decodes after its first (default: 32)' },
    'batch-sizes': { value: 'N,N', parse: listOf(integer(1, 256)), help: `sequences that decode together (default: ${batchSizes})` },
  } satisfies Record<string, OptionSpec<unknown>>;
}

/** The cases that sizes stand for. */
export function axesOf(
  options: OptionValues<ReturnType<typeof sizeSpecs>>,
  batchSizes: readonly number[],
  depths: readonly number[],
): ModelBenchRequest['axes'] {
  const promptLen = options['prompt-len'];
  return {
    promptLens: promptLen === undefined ? null : [promptLen],
    outputLens: [options['max-tokens'] ?? 32],
    depths,
    batchSizes: options['batch-sizes'] ?? batchSizes,
  };
}

const batchSizes = [1, 2, 4, 8, 16, 32];

const axes = {
  ...sizeSpecs(batchSizes),
  depth: { value: 'N,N', parse: listOf(integer(0)), help: 'tokens cached before, in each sequence; whole blocks (default: 0)' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof axes & typeof launchedSpecs> = {
  usage: 'ndsrun bench throughput [options] MODEL',
  description:
    'Measures how many tokens per second several sequences decode together, by their number, and prefill. Shares are of what this machine ' +
    'was measured to read or compute just before.',
  examples: ['ndsrun bench throughput MODEL --batch-sizes 1,8,64', 'ndsrun bench throughput --shape smollm2-135m --markdown'],
  specs: { ...axes, ...launchedSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function benchThroughput(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  return benchModel('throughput', axesOf(options, batchSizes, options.depth ?? [0]), options, operands);
}
