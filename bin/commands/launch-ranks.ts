/** Launching a gang from a command: on the user's script, or on one of this package's own. */
import { fileURLToPath } from 'node:url';
import { describeLaunch, type LaunchContext, launch } from '../../launcher/launch.ts';
import { launchSpecs } from '../../launcher/option-specs.ts';
import { type LaunchOptions, type LaunchValues, resolveLaunchOptions } from '../../launcher/options.ts';
import { publicJson } from '../../protocol/public-json.ts';
import { findUsableDevices } from '../cuda-probe.ts';
import { nodeIdentity } from '../node-identity.ts';
import { packageModule } from '../package-files.ts';
import { runtimeFor } from '../runtime.ts';

/** The devices of ranks that compute on the CPU, even where there are GPUs. */
export const noDevices = () => ({ devices: [], reason: null });

/** Runs the ranks to their end, or prints the plan with `--dry-run`. @returns the exit code of the job. */
export async function launchOrDescribe(options: LaunchOptions, context: LaunchContext): Promise<number> {
  if (!options.dryRun) return await launch(options, context);
  process.stdout.write(`${publicJson(await describeLaunch(options, context), 2)}\n`);
  return 0;
}

/** Says on a terminal, before ranks start, that the model of a command is loaded. */
export function announceLoad(model: string, isQuiet: boolean): void {
  if (!isQuiet && process.stderr.isTTY) process.stderr.write(`loading ${model}\n`);
}

/** Options that matter on node 0 only, where rank 0 reads and writes. */
const ofNodeZero: readonly string[] = ['messages', 'quiet'];

/** The command's options that nodes compare: ranks do what those of node 0 say, so others would have no effect. */
function agreedOf(options: Readonly<Record<string, unknown>>): Record<string, string> {
  const compared = Object.entries(options).filter(
    ([name, value]) => value !== undefined && !Object.hasOwn(launchSpecs, name) && !ofNodeZero.includes(name),
  );
  return Object.fromEntries(compared.map(([name, value]) => [name, typeof value === 'object' ? JSON.stringify(value) : String(value)]));
}

/** Whether this is another node than that of rank 0, which reads what a command is given. @throws NdsError `ERR_USAGE`. */
export function isOtherNode(options: LaunchValues): boolean {
  const { nodeRank } = resolveLaunchOptions(options, process.env, '', []);
  return nodeRank !== null && nodeRank > 0;
}

/**
 * Runs `module` (a path in this package, without extension) on every rank, or prints the plan with `--dry-run`.
 * `options` are the command's own too, and its operands by name: nodes compare them.
 *
 * @returns the exit code of the job.
 */
export async function launchRanks(
  module: string,
  options: Parameters<typeof resolveLaunchOptions>[0] & { readonly device?: string | undefined; readonly model?: string | undefined },
  args: readonly string[],
  overrides: Partial<LaunchOptions> = {},
): Promise<number> {
  const script = fileURLToPath(packageModule(module));
  const resolved = resolveLaunchOptions(options, process.env, script, args);
  const findDevices = options.device === 'cpu' ? noDevices : findUsableDevices;
  // NDS_NO_NODE applies to user scripts only, and so does NDS_RECORD where a command has no such option.
  return launchOrDescribe(
    { ...resolved, noNode: false, ...overrides },
    { runtime: runtimeFor(script), output: 'rank0', findDevices, identity: nodeIdentity, agreed: agreedOf(options) },
  );
}
