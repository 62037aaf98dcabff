/** `ndsrun [options] script …`: runs a script or a program on every rank. */
import { parseLaunchOptions } from '../../launcher/options.ts';
import { findUsableDevices } from '../cuda-probe.ts';
import { runtimeFor } from '../runtime.ts';
import { hintAtCommand } from '../sub-commands.ts';
import { launchOrDescribe, noDevices } from './launch-ranks.ts';

/** @returns the exit code of the job. */
export async function run(args: readonly string[]): Promise<number> {
  const options = parseLaunchOptions(args, process.env);
  if (options.noNode) return launchOrDescribe(options, { runtime: { nodeArgs: [] }, findDevices: noDevices });
  try {
    return await launchOrDescribe(options, { runtime: runtimeFor(options.script), findDevices: findUsableDevices });
  } catch (error) {
    throw hintAtCommand(error, options.script);
  }
}
