/**
 * `ndsrun bench spec`: speed-up of speculative decoding over plain decoding, by accept rule, number of drafts and
 * temperature.
 */
import { existsSync } from 'node:fs';
import type { CommandShape, OptionSpec, OptionValues } from '../../launcher/command-line.ts';
import { integer, listOf, number, oneOf, text } from '../../launcher/option-parsers.ts';
import { gangSpecs } from '../../launcher/option-specs.ts';
import { NdsError } from '../../protocol/errors.ts';
import { type DraftRule, draftRules } from '../../protocol/messages.ts';
import type { LLMOptions, SpeculativeMethod } from '../../rank/index.ts';
import { speculativeMethods } from '../../rank/speculative/config.ts';
import { type Outputs, outputSpecs, outputsOf } from '../bench/output.ts';
import { parseOrHelp } from '../parse-or-help.ts';
import { deviceSpecs } from './device-options.ts';
import { announceLoad, isOtherNode, launchRanks } from './launch-ranks.ts';
import { loadOf, loadSpecs } from './load-options.ts';
import { resolveForRanks } from './resolve-models.ts';

/** Parameters of the ranks. */
export interface BenchSpecRequest extends Outputs {
  readonly target: string;
  readonly load: LLMOptions;
  readonly method: SpeculativeMethod;
  /** Null unless the method is `draft_model`. */
  readonly draft: string | null;
  readonly draftSampleMethod: 'probabilistic' | 'greedy';
  readonly rules: readonly DraftRule[];
  /** Fixed numbers of drafts; the max of adaptive K is the largest. */
  readonly ks: readonly number[];
  readonly temperatures: readonly number[];
  readonly batchSizes: readonly number[];
  readonly maxTokens: number;
  readonly rounds: number;
  /** File with the prompt; null = built-in ones. */
  readonly promptFile: string | null;
}

const specs = {
  target: { value: 'MODEL', parse: text, help: 'the model whose text it is' },
  draft: { value: 'MODEL', parse: text, help: 'the smaller model that drafts, for --method draft_model' },
  method: {
    value: 'METHOD',
    parse: oneOf(...speculativeMethods),
    help: 'who drafts: draft_model, ngram or suffix (default: draft_model)',
  },
  k: { value: 'K,K', parse: listOf(integer(1, 32)), help: 'drafts of a step; adaptive K goes up to the most of them (default: 1,2,3,5,8)' },
  temperature: { value: 'T,T', parse: listOf(number), help: 'temperatures (default: 0,0.7,1)' },
  'rejection-sample-method': {
    value: 'RULE,RULE',
    parse: listOf(oneOf(...draftRules)),
    help: 'which drafts stay (default: coupled,standard,block)',
  },
  'draft-sample-method': {
    value: 'HOW',
    parse: oneOf('probabilistic', 'greedy'),
    help: 'how the draft model draws (default: probabilistic)',
  },
  'batch-sizes': { value: 'N,N', parse: listOf(integer(1, 256)), help: 'sequences that decode together (default: 1,8)' },
  'max-tokens': { value: 'N', parse: integer(2), help: 'tokens that each sequence decodes (default: 128)' },
  prompt: {
    value: 'FILE',
    parse: text,
    help: 'a text for all sequences to continue (default: openings of stories; for ngram and suffix with a story told once)',
  },
  rounds: { value: 'N', parse: integer(1), help: 'times that everything is measured; medians are shown (default: 3)' },
  dtype: loadSpecs.dtype,
  quantization: loadSpecs.quantization,
  ...deviceSpecs,
  'num-threads': loadSpecs['num-threads'],
  ...outputSpecs,
} satisfies Record<string, OptionSpec<unknown>>;

const shape: CommandShape<typeof specs & typeof gangSpecs> = {
  usage: 'ndsrun bench spec [options] --target MODEL --draft MODEL',
  description:
    'Compares speculative with plain decoding: speed-up, drafts accepted, and tokens of a step. The two take turns in one run, with the same prompts, threads and seeds. ' +
    'With the rule coupled, tokens have to be the same; exit code 78 says that they were not.',
  examples: ['ndsrun bench spec --target MODEL --draft SMALLER_MODEL --k 2,4', 'ndsrun bench spec --target MODEL --method ngram'],
  specs: { ...specs, ...gangSpecs },
  stopAtOperand: false,
};

/** @returns the exit code of the job. */
export async function benchSpec(args: readonly string[]): Promise<number> {
  const line = parseOrHelp(shape, args);
  if (line === null) return 0;
  const { options, operands } = line;
  if (operands.length > 0) throw new NdsError('ERR_USAGE', `Expected options only but received the operand "${operands[0]}"`);
  const request = requestOf(options);
  const { prompt } = options;
  if (prompt !== undefined && !isOtherNode(options) && !existsSync(prompt))
    throw new NdsError('ERR_NOT_FOUND', `Expected a file for --prompt but ${prompt} does not exist`);
  const target = await resolveForRanks(request.target, options);
  const draft = await resolveForRanks(request.draft, options);
  announceLoad(request.target, request.quiet || (options['dry-run'] ?? false));
  return launchRanks('bin/commands/bench-spec-rank', options, [JSON.stringify({ ...request, target, draft })]);
}

function requestOf(options: OptionValues<typeof specs>): BenchSpecRequest {
  const { target, draft, method = 'draft_model', prompt } = options;
  if (target === undefined) throw new NdsError('ERR_USAGE', 'Expected --target MODEL but received none');
  if ((method === 'draft_model') !== (draft !== undefined)) {
    const expected = draft === undefined ? '--draft MODEL with' : 'no --draft with';
    throw new NdsError('ERR_USAGE', `Expected ${expected} --method ${method} but received ${draft ?? 'none'}`);
  }
  return {
    target,
    load: loadOf(options),
    method,
    draft: draft ?? null,
    draftSampleMethod: options['draft-sample-method'] ?? 'probabilistic',
    rules: options['rejection-sample-method'] ?? draftRules,
    ks: options.k ?? [1, 2, 3, 5, 8],
    temperatures: options.temperature ?? [0, 0.7, 1],
    batchSizes: options['batch-sizes'] ?? [1, 8],
    maxTokens: options['max-tokens'] ?? 128,
    rounds: options.rounds ?? 3,
    promptFile: prompt ?? null,
    ...outputsOf(options),
  };
}
