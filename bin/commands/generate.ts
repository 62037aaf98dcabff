/** `ndsrun generate MODEL PROMPT`: generates text without a script. */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import type { CommandShape, OptionSpec } from '../../launcher/command-line.ts';
import { flag, text } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { LLMOptions, SamplingParams } from '../../rank/index.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { announceLoad, isOtherNode, launchRanks } from './launch-ranks.ts';
import { loadOf, loadSpecs } from './load-options.ts';
import { argumentChunks, noteChatTemplate, readMessages } from './messages-option.ts';
import { resolveModels } from './resolve-models.ts';
import { anyInteger, drawOf, drawSpecs, samplingOf, samplingSpecs } from './sampling-options.ts';

/** Parameters of the ranks, beside the prompt or the conversation. */
export interface GenerateRequest {
  readonly model: string;
  readonly load: LLMOptions;
  /** Without `maxTokens` an answer goes up to the context. */
  readonly sampling: Omit<SamplingParams, 'seed'>;
  /** In decimal, as JSON numbers are not exact at 64 bits. */
  readonly seed: string | null;
  /** Null continues the prompt; else it is answered by the chat template. */
  readonly chat: { readonly system: string | null } | null;
  readonly json: boolean;
  readonly quiet: boolean;
}

const generateSpecs = {
  'max-tokens': { value: 'N', parse: anyInteger, help: 'most tokens to generate (default: 128; with --chat, up to the context)' },
  ...drawSpecs,
  ...samplingSpecs,
  prompt: { value: 'TEXT', parse: String, help: 'the prompt, in the place of the operand' },
  chat: { value: null, parse: flag, help: "answer the prompt as a user's message, by the model's chat template" },
  system: { value: 'TEXT', parse: text, help: 'the system message of such a conversation; --chat is implied' },
  messages: {
    value: 'FILE',
    parse: text,
    help: 'a conversation to answer, JSON [{ role, content }], in the place of PROMPT; - = standard input',
  },
  ...loadSpecs,
  json: { value: null, parse: flag, help: 'print JSON at the end instead of text as it comes: one object, an array with --n' },
  quiet: { value: null, parse: flag, help: 'nothing on standard error but errors' },
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof generateSpecs & typeof gangSpecs> = {
  usage: 'ndsrun generate [options] MODEL [PROMPT]',
  description:
    'Continues a prompt, or answers a conversation; only the text goes to standard output. A prompt of - is read from standard input, without its last newline.',
  examples: [
    'ndsrun generate MODEL "Once upon a time" --max-tokens 64 --temperature 0.7',
    'echo "The cat" | ndsrun generate MODEL - --quiet',
    'ndsrun generate MODEL "What is a sonnet?" --system "Answer in one sentence."',
  ],
  specs: { ...generateSpecs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function generate(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  const { model, prompt } = namedOnce(operands, options.prompt, options.messages);
  if (prompt !== null) checkPrompt(prompt);
  const isChat = options.chat === true || options.system !== undefined || options.messages !== undefined;
  const quiet = options.quiet ?? false;
  const request: GenerateRequest = {
    model,
    load: loadOf(options),
    sampling: {
      maxTokens: options['max-tokens'] ?? (isChat ? undefined : 128),
      ...drawOf(options),
      ...samplingOf(options, options.json ?? false),
    },
    seed: options.seed ?? null,
    chat: isChat ? { system: options.system ?? null } : null,
    json: options.json ?? false,
    quiet,
  };
  const messages = options.messages === undefined || isOtherNode(options) ? null : readMessages(options.messages, options.system ?? null);
  const resolved = await resolveModels(request, options);
  const isSilent = quiet || (options['dry-run'] ?? false);
  if (!isChat && !isSilent && !isOtherNode(options)) await noteChatTemplate(resolved.model);
  announceLoad(model, isSilent);
  const conversation = messages === null ? [] : ['messages', ...argumentChunks(JSON.stringify(messages))];
  const rest = prompt === null ? conversation : ['prompt', prompt];
  const named = { ...options, model, ...(prompt !== null && { prompt }) };
  return launchRanks('bin/commands/generate-rank', named, [JSON.stringify(resolved), ...rest]);
}

/** @throws NdsError `ERR_USAGE` unless there is one model, and one prompt or conversation. */
function namedOnce(
  operands: readonly string[],
  option: string | undefined,
  messages: string | undefined,
): { model: string; prompt: string | null } {
  const [model, operand, extra] = operands;
  if (option !== undefined && messages !== undefined) throw new NdsError('ERR_USAGE', 'Expected --prompt or --messages but received both');
  const other = option !== undefined ? '--prompt' : '--messages';
  const isElsewhere = option !== undefined || messages !== undefined;
  if (isElsewhere && operand !== undefined) {
    throw new NdsError('ERR_USAGE', `Expected MODEL alone beside ${other} but received ${operands.length} operands`);
  }
  const prompt = option ?? (messages === undefined ? operand : null);
  if (model === undefined || prompt === undefined || extra !== undefined) {
    throw new NdsError('ERR_USAGE', `Expected MODEL and PROMPT but received ${operands.length} of them (quote a prompt with spaces)`);
  }
  return { model, prompt };
}

/** Node replaces bytes that are not UTF-8; the kernel still has the original command line. */
function checkPrompt(prompt: string): void {
  if (prompt.includes('\ufffd') && process.platform === 'linux' && !isUtf8(readFileSync('/proc/self/cmdline'))) {
    throw new NdsError('ERR_REQUEST', 'Expected a prompt in UTF-8 but received bytes that are none');
  }
}
