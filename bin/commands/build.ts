/** `ndsrun build`: builds the native core where no prebuilt one fits, and the CUDA backend. */
import { existsSync } from 'node:fs';
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { NdsError } from '../../protocol/errors.ts';
import { buildAddon, native } from '../../rank/native.ts';
import { parseOrHelp } from '../parse-or-help.ts';

const specs = {
  cuda: { value: null, parse: flag, help: 'build the CUDA backend too, and fail without nvcc' },
} satisfies Record<string, OptionSpec<unknown>>;

/** The command line of `ndsrun build`. */
export const buildShape: CommandShape<typeof specs> = {
  examples: ['ndsrun build', 'ndsrun build --cuda'],
  usage: 'ndsrun build [options]',
  description:
    'Builds the native core where no prebuilt one fits, and the CUDA backend where nvcc is found (NVCC, PATH or /usr/local/cuda). ' +
    'Prints where they are.',
  specs,
  stopAtOperand: false,
};

/** @throws NdsError `ERR_NATIVE` when a build fails, or nothing that builds is there. */
export async function build(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(buildShape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected no arguments for build but received ${operands.join(' ')}`);
  const { addon, cuda, isPrebuilt, cudaBuild } = buildAddon({ cuda: options.cuda === true });
  const { isas, isa } = native().cpuInfo();
  const lines = [`${isPrebuilt ? 'prebuilt core' : 'native core'}  ${addon} (${isas.join(', ')}; in use: ${isa})`];
  const why = cudaBuild?.failure ? 'its build failed' : 'not built: nvcc was not found, or NDS_CUDA is off';
  lines.push(`CUDA backend   ${existsSync(cuda) ? cuda : why}`);
  process.stdout.write(`${lines.join('\n')}\n`);
  return 0;
}
