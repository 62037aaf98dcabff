/** `ndsrun replay FILE`: runs the steps of a plan log again, without the script, and compares their results. */
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag, integer, text } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { announceLoad, launchRanks } from './launch-ranks.ts';
import { resolveNamed } from './resolve-models.ts';

/** Parameters of the ranks. */
export interface ReplayRequest {
  readonly file: string;
  /** Path of the model; null = as recorded. */
  readonly model: string | null;
  /** Path of the draft model; null = as recorded. */
  readonly draft: string | null;
  /** Null = as recorded. */
  readonly numThreads: number | null;
  readonly quiet: boolean;
}

const replaySpecs = {
  model: { value: 'MODEL', parse: text, help: 'where the model lies (default: where it was recorded)' },
  draft: { value: 'MODEL', parse: text, help: 'where the draft model lies (default: where it was recorded)' },
  'num-threads': { value: 'N', parse: integer(1), help: 'threads of each rank (default: as recorded)' },
  quiet: { value: null, parse: flag, help: 'no progress on standard error' },
} satisfies Record<string, OptionSpec<unknown>>;

const { record: _, ...replayedSpecs } = gangSpecs;

const shape: CommandShape<typeof replaySpecs & typeof replayedSpecs> = {
  usage: 'ndsrun replay [options] FILE',
  description:
    'Runs the steps that ndsrun --record wrote to FILE again, on any number of ranks, and says which is the first to differ.\n' +
    'Ends with 0 when all are identical, with 78 when one differs or the model is another.',
  examples: ['ndsrun --record job.plans script.ts', 'ndsrun replay job.plans --nproc-per-node 2'],
  specs: { ...replaySpecs, ...replayedSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function replay(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [file, extra] = operands;
  if (file === undefined || extra !== undefined) throw new NdsError('ERR_USAGE', `Expected FILE but received ${operands.length} operands`);
  const { 'num-threads': numThreads = null } = options;
  const model = await resolveNamed(options.model ?? null, options);
  const draft = await resolveNamed(options.draft ?? null, options);
  const request: ReplayRequest = { file, model, draft, numThreads, quiet: options.quiet ?? false };
  announceLoad(file, request.quiet || (options['dry-run'] ?? false));
  return launchRanks('bin/commands/replay-rank', options, [JSON.stringify(request)], { record: null });
}
