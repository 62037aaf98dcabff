/** `ndsrun bench comm`: all-reduce and all-gather between the ranks of a job, by size. */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { integer, listOf } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { resolveLaunchOptions } from '../../launcher/options.ts';
import { NdsError } from '../../protocol/errors.ts';
import { type Outputs, outputSpecs, outputsOf } from '../bench/output.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { launchRanks } from './launch-ranks.ts';

/** Parameters of the ranks. */
export interface BenchCommRequest extends Outputs {
  /** Of the result of a collective: whole floats. */
  readonly sizes: readonly number[];
  readonly numCalls: number;
  readonly warmups: number;
  readonly rounds: number;
}

const specs = {
  bytes: {
    value: 'N,N',
    parse: listOf(integer(4, 2 ** 28)),
    help: 'bytes of the result, multiples of 4 (default: 2048,8192,32768,131072,1048576,8388608)',
  },
  calls: { value: 'N', parse: integer(1), help: 'calls of which a round takes the mean (default: 200)' },
  warmups: { value: 'N', parse: integer(1), help: 'rounds before those that count (default: 1)' },
  rounds: { value: 'N', parse: integer(1), help: 'times that everything is measured, in turns (default: 5)' },
  ...outputSpecs,
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs & typeof gangSpecs> = {
  usage: 'ndsrun bench comm [options] --nproc-per-node N',
  description:
    'Measures what the ranks of one node exchange on the CPU: all-reduce of partial sums and all-gather, by size of the result, in µs ' +
    'of a call, with the bytes of the result over that time.',
  examples: ['ndsrun bench comm --nproc-per-node 2', 'ndsrun bench comm --nproc-per-node 4 --bytes 4096,65536 --markdown'],
  specs: { ...specs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function benchComm(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected options only but received the operand "${operands[0]}"`);
  const sizes = options.bytes ?? [2048, 8192, 32_768, 131_072, 1_048_576, 8_388_608];
  const odd = sizes.find((size) => size % 4 !== 0);
  if (odd !== undefined) throw new NdsError('ERR_USAGE', `Expected a multiple of 4 for --bytes but received ${odd}`);
  const { nnodes, nprocPerNode } = resolveLaunchOptions(options, process.env, '', []);
  if (nnodes > 1) throw new NdsError('ERR_USAGE', `Expected one node, whose ranks share memory, but received ${nnodes}`);
  if (typeof nprocPerNode !== 'number' || nprocPerNode < 2)
    throw new NdsError('ERR_USAGE', `Expected at least 2 for --nproc-per-node but received ${nprocPerNode}`);
  const request: BenchCommRequest = {
    sizes,
    numCalls: options.calls ?? 200,
    warmups: options.warmups ?? 1,
    rounds: options.rounds ?? 5,
    ...outputsOf(options),
  };
  return launchRanks('bin/commands/bench-comm-rank', { ...options, device: 'cpu' }, [JSON.stringify(request)]);
}
