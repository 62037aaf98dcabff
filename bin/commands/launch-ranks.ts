/** Launches a gang on one of this package's own rank scripts: what sub-commands that need ranks share. */

import { fileURLToPath } from 'node:url';
import { describeLaunch, launch } from '../../launcher/launch.ts';
import { resolveLaunchOptions } from '../../launcher/options.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { packageModule, runtimeFor } from '../runtime.ts';

/**
 * Runs `module` (a path in this package, without extension) on every rank, or prints the plan with `--dry-run`.
 *
 * @returns the exit code of the job.
 */
export async function launchRanks(
  module: string,
  options: Parameters<typeof resolveLaunchOptions>[0],
  args: readonly string[],
): Promise<number> {
  const script = fileURLToPath(packageModule(module));
  const resolved = resolveLaunchOptions(options, process.env, script, args);
  // NDS_NO_NODE is about scripts of the user's.
  const launchOptions = { ...resolved, noNode: false };
  const context = { runtime: runtimeFor(script), output: 'rank0' } as const;
  if (!launchOptions.dryRun) return await launch(launchOptions, context);
  process.stdout.write(`${publicJson(await describeLaunch(launchOptions, context), 2)}\n`);
  return 0;
}
