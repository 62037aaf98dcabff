/**
 * `ndsrun bench MODEL`: speed of prefill and decode, relative to this machine's memory bandwidth and arithmetic in the
 * same minute.
 */
import type { CommandShape } from '../../launcher/command-line.ts';
import { benchModel, launchedSpecs } from '../bench/model-request.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { axesOf, sizeSpecs } from './bench-throughput.ts';

const batchSizes = [1, 8, 32];
const axes = sizeSpecs(batchSizes);

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
  return benchModel('model', axesOf(options, batchSizes, [0]), options, operands);
}
