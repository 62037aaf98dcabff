/** `ndsrun generate MODEL PROMPT`: generates text without a script. */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { type CommandShape, type OptionSpec, parseCommandLine } from '../../launcher/command-line.ts';
import { helpFor } from '../../launcher/help.ts';
import { flag, integer, number, text } from '../../launcher/option-parsers.ts';
import { launchSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { LLMOptions, SamplingParams } from '../../rank/index.ts';
import { deviceOf, deviceSpecs } from './device-options.ts';
import { announceLoad, launchRanks } from './launch-ranks.ts';
import { resolveModels } from './resolve-models.ts';
import { samplingOf, samplingSpecs } from './sampling-options.ts';
import { speculativeConfig } from './speculative-option.ts';

/** Parameters of the ranks, beside the prompt. */
export interface GenerateRequest {
  readonly model: string;
  readonly load: LLMOptions;
  readonly sampling: Omit<SamplingParams, 'seed'>;
  /** In decimal, as JSON numbers are not exact at 64 bits. */
  readonly seed: string | null;
  readonly json: boolean;
  readonly quiet: boolean;
}

const textList = { repeats: true, parse: (value: string, where: string): readonly string[] => [text(value, where)] } as const;

const generateSpecs = {
  'max-tokens': { value: 'N', parse: integer(Number.MIN_SAFE_INTEGER), help: 'most tokens to generate (default: 128)' },
  temperature: { value: 'T', parse: number, help: "0 = greedy (default: the model's, else 1)" },
  'top-k': {
    value: 'K',
    parse: integer(Number.MIN_SAFE_INTEGER),
    help: "keep the K likeliest tokens; 0 = all (default: the model's, else 0)",
  },
  'top-p': { value: 'P', parse: number, help: "keep the likeliest tokens up to this mass (default: the model's, else 1)" },
  'min-p': { value: 'P', parse: number, help: "keep tokens this likely, relative to the likeliest (default: the model's, else 0)" },
  seed: { value: 'N', parse: seed, help: 'integer from 0 to 2^64 - 1 (default: drawn)' },
  stop: { value: 'TEXT', ...textList, help: 'where to stop; may be given several times' },
  'ignore-eos': { value: null, parse: flag, help: 'go on after an end-of-sequence token' },
  ...samplingSpecs,
  dtype: { value: 'TYPE', parse: text, help: 'activations: auto, float32 or bfloat16 (default: auto)' },
  'kv-cache-dtype': { value: 'TYPE', parse: text, help: 'KV cache: auto (that of activations) or int8 (default: auto)' },
  ...deviceSpecs,
  'max-model-len': { value: 'N', parse: integer(1), help: "most tokens of prompt and output (default: the model's own limit)" },
  'kv-cache-memory-bytes': { value: 'N', parse: integer(1), help: 'KV cache of each rank' },
  'kv-cache-memory-share': { value: 'S', parse: number, help: 'KV cache of the ranks of a host, of its free memory (default: 0.25)' },
  'num-threads': { value: 'N', parse: integer(1), help: 'threads of each rank (default: cores / ranks)' },
  'speculative-config': {
    value: 'JSON',
    parse: speculativeConfig,
    help: 'draft tokens ahead, e.g. {"method":"ngram"} or {"model":"DRAFT"} (default: none)',
  },
  json: { value: null, parse: flag, help: 'print JSON at the end instead of text as it comes: one object, an array with --n' },
  quiet: { value: null, parse: flag, help: 'no progress and no line of timings on standard error' },
} satisfies Record<string, OptionSpec<unknown>>;

const { 'no-node': _, ...gangSpecs } = launchSpecs;

const shape: CommandShape<typeof generateSpecs & typeof gangSpecs> = {
  usage: 'ndsrun generate [options] MODEL PROMPT',
  description: 'Continues a prompt; only the text goes to standard output. A prompt of - is read from standard input.',
  examples: [
    'ndsrun generate MODEL "Once upon a time" --max-tokens 64 --temperature 0.7',
    'echo "The cat" | ndsrun generate MODEL - --quiet',
  ],
  specs: { ...generateSpecs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function generate(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(helpFor(shape));
    return 0;
  }
  const { options, operands } = parseCommandLine(shape, args);
  const [model, prompt, extra] = operands;
  if (model === undefined || prompt === undefined || extra !== undefined) {
    throw new NdsError('ERR_USAGE', `Expected MODEL and PROMPT but received ${operands.length} of them (quote a prompt with spaces)`);
  }
  checkPrompt(prompt);
  const request: GenerateRequest = {
    model,
    load: {
      dtype: options.dtype as LLMOptions['dtype'],
      kvCacheDtype: options['kv-cache-dtype'] as LLMOptions['kvCacheDtype'],
      ...deviceOf(options),
      maxModelLen: options['max-model-len'],
      kvCacheMemoryBytes: options['kv-cache-memory-bytes'],
      kvCacheMemoryShare: options['kv-cache-memory-share'],
      numThreads: options['num-threads'],
      speculativeConfig: options['speculative-config'],
    },
    sampling: {
      maxTokens: options['max-tokens'] ?? 128,
      temperature: options.temperature,
      topK: options['top-k'],
      topP: options['top-p'],
      minP: options['min-p'],
      stop: options.stop,
      ignoreEos: options['ignore-eos'],
      ...samplingOf(options, options.json ?? false),
    },
    seed: options.seed ?? null,
    json: options.json ?? false,
    quiet: options.quiet ?? false,
  };
  const resolved = await resolveModels(request, options);
  announceLoad(model, request.quiet || (options['dry-run'] ?? false));
  return launchRanks('bin/commands/generate-rank', options, [JSON.stringify(resolved), prompt]);
}

function seed(value: string, where: string): string {
  if (!/^\d+$/.test(value) || BigInt(value) >= 2n ** 64n) {
    throw new NdsError('ERR_USAGE', `Expected an integer from 0 to 2^64 - 1 for ${where} but received "${value}"`);
  }
  return value;
}

/** Node replaces bytes that are not UTF-8; the kernel still has the original command line. */
function checkPrompt(prompt: string): void {
  if (prompt.includes('\ufffd') && process.platform === 'linux' && !isUtf8(readFileSync('/proc/self/cmdline'))) {
    throw new NdsError('ERR_REQUEST', 'Expected a prompt in UTF-8 but received bytes that are none');
  }
}
