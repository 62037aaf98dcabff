/** `ndsrun chat MODEL`: a conversation at the terminal, or with what standard input says line by line. */
import { isatty } from 'node:tty';
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag, text } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { LLMOptions, SamplingParams } from '../../rank/index.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { announceLoad, launchRanks } from './launch-ranks.ts';
import { loadOf, loadSpecs } from './load-options.ts';
import { refuseWithoutTemplate } from './messages-option.ts';
import { resolveModels } from './resolve-models.ts';
import { anyInteger, drawOf, drawSpecs, samplingOf, samplingSpecs } from './sampling-options.ts';

/** Parameters of the ranks. */
export interface ChatRequest {
  readonly model: string;
  readonly load: LLMOptions;
  readonly system: string | null;
  readonly sampling: Omit<SamplingParams, 'seed'>;
  /** In decimal, as JSON numbers are not exact at 64 bits. */
  readonly seed: string | null;
  /** Whether lines are edited: standard input and output are a terminal. */
  readonly isTerminal: boolean;
  /** Whether standard error is that terminal too. */
  readonly isOneScreen: boolean;
  readonly hasColor: boolean;
  readonly tintDrafts: boolean;
  readonly keepsHistory: boolean;
  readonly quiet: boolean;
}

// One answer at a time, whose text alone is shown.
const { n: _, logprobs: __, 'prompt-logprobs': ___, ...answerSpecs } = samplingSpecs;
const chatSpecs = {
  system: { value: 'TEXT', parse: text, help: 'the system message' },
  'max-tokens': { value: 'N', parse: anyInteger, help: "most tokens of an answer (default: the model's, else up to the context)" },
  ...drawSpecs,
  ...answerSpecs,
  'tint-drafts': { value: null, parse: flag, help: 'show accepted drafts in green; needs --speculative-config' },
  'no-history': { value: null, parse: flag, help: 'neither read nor keep the history of lines' },
  ...loadSpecs,
  quiet: { value: null, parse: flag, help: 'nothing on standard error but errors' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof chatSpecs & typeof gangSpecs> = {
  usage: 'ndsrun chat [options] MODEL',
  description:
    'Talks with a model that has a chat template. /help lists the commands. Where standard input or output is no terminal, each line is a message, only answers go to standard output, and the first error ends the chat.',
  examples: ['ndsrun chat MODEL --system "You are a pirate."', 'echo "Hello!" | ndsrun chat MODEL --quiet'],
  specs: { ...chatSpecs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function chat(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const [model, extra] = operands;
  if (model === undefined || extra !== undefined) {
    throw new NdsError('ERR_USAGE', `Expected MODEL but received ${operands.length} operands (messages come on standard input)`);
  }
  const tintDrafts = options['tint-drafts'] ?? false;
  if (tintDrafts && options['speculative-config'] === undefined) {
    throw new NdsError('ERR_USAGE', 'Expected --speculative-config with --tint-drafts but received none');
  }
  const hasColor = usesColor(process.env);
  const request: ChatRequest = {
    model,
    // One sequence: the KV cache holds one conversation.
    load: { ...loadOf(options), maxNumSeqs: 1 },
    system: options.system ?? null,
    sampling: { maxTokens: options['max-tokens'], ...drawOf(options), ...samplingOf(options, false) },
    seed: options.seed ?? null,
    isTerminal: isatty(0) && isatty(1),
    isOneScreen: isatty(0) && isatty(1) && isatty(2),
    hasColor,
    tintDrafts: tintDrafts && hasColor,
    keepsHistory: !(options['no-history'] ?? false),
    quiet: options.quiet ?? false,
  };
  const isDryRun = options['dry-run'] ?? false;
  const resolved = await resolveModels(request, options);
  if (!isDryRun) await refuseWithoutTemplate(resolved.model);
  announceLoad(model, request.quiet || isDryRun);
  return launchRanks('bin/commands/chat-rank', { ...options, model }, [JSON.stringify(resolved)]);
}

/** NO_COLOR wins over FORCE_COLOR, and both over the terminal. */
function usesColor({ NO_COLOR, FORCE_COLOR }: NodeJS.ProcessEnv): boolean {
  if (NO_COLOR) return false;
  return FORCE_COLOR === undefined ? isatty(1) : FORCE_COLOR !== '0';
}
