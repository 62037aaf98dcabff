/** `ndsrun [options] script …`: runs a script, or a program, on every rank. */
import { parseLaunchOptions } from '../../launcher/options.ts';
import { runtimeFor } from '../runtime.ts';
import { launchOrDescribe } from './launch-ranks.ts';

/** @returns the exit code of the job. */
export async function run(args: readonly string[]): Promise<number> {
  const options = parseLaunchOptions(args, process.env);
  const context = { runtime: options.noNode ? { nodeArgs: [] } : runtimeFor(options.script) };
  return launchOrDescribe(options, context);
}
