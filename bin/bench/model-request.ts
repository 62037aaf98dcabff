/** What the commands that measure prefill and decode share: options, and the request that their ranks get. */
import type { OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { integer } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { type LaunchValues, resolveLaunchOptions } from '../../launcher/options.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { LLMOptions } from '../../rank/index.ts';
import { announceLoad, launchRanks } from '../commands/launch-ranks.ts';
import { loadOf, loadSpecs } from '../commands/load-options.ts';
import { resolveModels } from '../commands/resolve-models.ts';
import type { CaseAxes } from './cases.ts';
import { type Outputs, outputSpecs, outputsOf } from './output.ts';
import { shapeName, shapes } from './shapes.ts';

/** Parameters of the ranks. */
export interface ModelBenchRequest extends Outputs {
  readonly command: 'latency' | 'throughput' | 'model';
  /** Folder or name; for a shape, the shape's name. */
  readonly model: string;
  readonly isShape: boolean;
  readonly load: LLMOptions;
  /** `promptLens` null = 512, or the most that the model takes. */
  readonly axes: Omit<CaseAxes, 'promptLens'> & { readonly promptLens: readonly number[] | null };
  /** null = as many as take some seconds. */
  readonly warmups: number | null;
  readonly rounds: number;
}

/** Options of each of these commands, besides its axes. */
export const modelBenchSpecs = {
  warmups: { value: 'N', parse: integer(1), help: 'times that everything runs before it is measured (default: 1, or 3 s)' },
  rounds: { value: 'N', parse: integer(1), help: 'times that everything is measured, in turns (default: 3)' },
  shape: { value: 'NAME', parse: shapeName, help: `random weights instead of MODEL: ${Object.keys(shapes).join(', ')}` },
  ...loadSpecs,
  ...outputSpecs,
} satisfies Record<string, OptionSpec<unknown>>;

/** The same with those of the launcher. */
export const launchedSpecs = { ...modelBenchSpecs, ...gangSpecs };

/** Launches the ranks of a command. @returns the exit code of the job. */
export async function benchModel(
  command: ModelBenchRequest['command'],
  axes: ModelBenchRequest['axes'],
  options: OptionValues<typeof modelBenchSpecs> & LaunchValues & { readonly 'dry-run'?: boolean | undefined },
  operands: readonly string[],
): Promise<number> {
  const { shape } = options;
  const model = modelOf(shape, operands);
  const load = loadOf(options);
  if (shape !== undefined) refuseForShape(options, load);
  const request: ModelBenchRequest = {
    command,
    model,
    isShape: shape !== undefined,
    load: { ...load, maxNumSeqs: Math.max(64, ...axes.batchSizes) },
    axes,
    warmups: options.warmups ?? null,
    rounds: options.rounds ?? 3,
    ...outputsOf(options),
  };
  const resolved = request.isShape ? request : await resolveModels(request, options);
  announceLoad(model, request.quiet || (options['dry-run'] ?? false));
  return launchRanks('bin/commands/bench-rank', { ...options, model }, [JSON.stringify(resolved)]);
}

function modelOf(shape: string | undefined, operands: readonly string[]): string {
  const [model, extra] = operands;
  if (shape !== undefined && model !== undefined)
    throw new NdsError('ERR_USAGE', `Expected MODEL or --shape but received ${model} and ${shape}`);
  const found = shape ?? model;
  if (found === undefined || extra !== undefined)
    throw new NdsError('ERR_USAGE', `Expected MODEL or --shape but received ${operands.length} operands`);
  return found;
}

/** Random weights say nothing of drafts, and lie in the memory of one node. */
function refuseForShape(options: LaunchValues, { speculativeConfig }: LLMOptions): void {
  if (speculativeConfig !== undefined)
    throw new NdsError('ERR_USAGE', 'Expected no --speculative-config with --shape: of random weights, no draft is accepted but by chance');
  const { nnodes } = resolveLaunchOptions(options, process.env, '', []);
  if (nnodes > 1) throw new NdsError('ERR_USAGE', `Expected one node with --shape, whose weights one node has, but received ${nnodes}`);
}
