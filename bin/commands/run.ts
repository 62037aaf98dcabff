/** `ndsrun [options] script …`: runs a script or a program on every rank. */
import { type CommandShape, type OptionSpec, parseCommandLine } from '../../launcher/command-line.ts';
import { helpFor } from '../../launcher/help.ts';
import { flag } from '../../launcher/option-parsers.ts';
import { launchShape, launchSpecs } from '../../launcher/option-specs.ts';
import { parseLaunchOptions } from '../../launcher/options.ts';
import { checkScript } from '../../launcher/script.ts';
import { findUsableDevices } from '../cuda-probe.ts';
import { nodeIdentity, programIdentity } from '../node-identity.ts';
import { passedOverCopy } from '../package-copy.ts';
import { runtimeFor } from '../runtime.ts';
import { hintAtCommand } from '../sub-commands.ts';
import { launchOrDescribe, noDevices } from './launch-ranks.ts';

const help: OptionSpec<boolean> = { value: null, short: '-h', parse: flag, help: 'show this help' };
const shape: CommandShape<typeof launchSpecs & { help: typeof help }> = { ...launchShape, specs: { ...launchSpecs, help } };

/** @returns the exit code of the job. */
export async function run(args: readonly string[]): Promise<number> {
  if (parseCommandLine(shape, args).options.help) {
    process.stdout.write(helpFor(launchShape));
    return 0;
  }
  const options = parseLaunchOptions(args, process.env);
  if (options.noNode) return launchOrDescribe(options, { runtime: { nodeArgs: [] }, findDevices: noDevices, identity: programIdentity });
  try {
    checkScript(options);
    const passedOver = passedOverCopy(options.script);
    if (passedOver !== null) process.stderr.write(`ndsrun: ${passedOver}\n`);
    return await launchOrDescribe(options, { runtime: runtimeFor(options.script), findDevices: findUsableDevices, identity: nodeIdentity });
  } catch (error) {
    throw hintAtCommand(error, options.script);
  }
}
