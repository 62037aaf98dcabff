/**
 * `ndsrun bench MODEL`: speed of prefill and decode, relative to this machine's memory bandwidth and arithmetic in the
 * same minute.
 */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { integer } from '../../launcher/option-parsers.ts';
import { benchModel, launchedSpecs, listOf } from '../bench/model-request.ts';
import { parseOrHelp } from '../parse-or-help.ts';

const axes = {
  'prompt-len': { value: 'N', parse: integer(1), help: 'tokens of the prompt that is prefilled (default: 512, or what the model takes)' },
  'max-tokens': { value: 'N', parse: integer(1), help: 'tokens that each sequence decodes after its first (default: 32)' },
  'batch-sizes': { value: 'N,N', parse: listOf(integer(1, 256)), help: 'sequences that decode together (default: 1,8,32)' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof axes & typeof launchedSpecs> = {
  usage: 'ndsrun bench [options] MODEL',
  description:
    'Measures prefill and decode of a model, and the bandwidth and arithmetic of this machine beside them: `ndsrun bench latency` and ' +
    '`bench throughput` in short. `bench spec` measures speculative decoding, `bench comm` the ranks, `bench kv-utilization` KV memory.',
  examples: ['ndsrun bench MODEL --nproc-per-node 2 --batch-sizes 1,16', 'ndsrun bench --shape qwen3-0.6b'],
  specs: { ...axes, ...launchedSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function bench(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const promptLen = options['prompt-len'];
  const cases = {
    promptLens: promptLen === undefined ? null : [promptLen],
    outputLens: [options['max-tokens'] ?? 32],
    depths: [0],
    batchSizes: options['batch-sizes'] ?? [1, 8, 32],
  };
  return benchModel('model', cases, options, operands);
}
