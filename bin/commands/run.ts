/** `ndsrun [options] script …`: runs a script, or a program, on every rank. */

import { describeLaunch, launch } from '../../launcher/launch.ts';
import { parseLaunchOptions } from '../../launcher/options.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { runtimeFor } from '../runtime.ts';

/** @returns the exit code of the job. */
export async function run(args: readonly string[]): Promise<number> {
  const options = parseLaunchOptions(args, process.env);
  const context = { runtime: options.noNode ? { nodeArgs: [] } : runtimeFor(options.script) };
  if (!options.dryRun) return await launch(options, context);
  process.stdout.write(`${publicJson(await describeLaunch(options, context), 2)}\n`);
  return 0;
}
