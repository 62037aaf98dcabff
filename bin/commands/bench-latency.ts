/** `ndsrun bench latency MODEL`: one sequence, as llama-bench measures it: pp512 and tg128, each at depths. */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { integer, listOf } from '../../launcher/option-parsers.ts';
import { benchModel, launchedSpecs } from '../bench/model-request.ts';
import { parseOrHelp } from '../parse-or-help.ts';

const axes = {
  'prompt-len': {
    value: 'N,N',
    parse: listOf(integer(0)),
    help: "tokens of a prompt, llama-bench's -p; 0 = no prefill (default: 512, or what the model takes)",
  },
  'max-tokens': { value: 'N,N', parse: listOf(integer(1)), help: "tokens decoded after the first, llama-bench's -n (default: 128)" },
  depth: { value: 'N,N', parse: listOf(integer(0)), help: "tokens cached before, llama-bench's -d; whole blocks (default: 0)" },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof axes & typeof launchedSpecs> = {
  usage: 'ndsrun bench latency [options] MODEL',
  description:
    "Measures one sequence, by llama-bench's names: pp512 is the prefill of 512 tokens, tg128 the decoding of 128, and @ d1024 says that " +
    '1,024 tokens were cached before. Shares are of what this machine was measured to read or compute just before.',
  examples: ['ndsrun bench latency MODEL --depth 0,1024', 'ndsrun bench latency --shape qwen3-0.6b --html latency.html'],
  specs: { ...axes, ...launchedSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function benchLatency(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const cases = {
    promptLens: options['prompt-len'] ?? null,
    outputLens: options['max-tokens'] ?? [128],
    depths: options.depth ?? [0],
    batchSizes: [1],
  };
  return benchModel('latency', cases, options, operands);
}
