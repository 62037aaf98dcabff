/**
 * Typed command lines over commander: both spellings of a name, environment variables, conflicts, and the nearest name
 * for a mistyped one.
 */
import { Command, CommanderError, Option } from 'commander';
import { NdsError } from '../protocol/errors.ts';
import { camelCase, foreignAnswer, kebabCase } from '../protocol/foreign-names.ts';
import { nearest } from '../protocol/nearest.ts';
import type { Environment } from '../protocol/rank-env.ts';

/** An option; `parse` receives the text and its source, which its error names. */
export interface OptionSpec<T> {
  /** Name of the value in the help; `null` for a flag. */
  readonly value: string | null;
  readonly help: string;
  readonly short?: string;
  /** Other kebab-case names of the same option. */
  readonly also?: readonly string[];
  /** Left out of the help. */
  readonly hidden?: true;
  /** May be given several times: `parse` returns an array then, and the arrays are concatenated. */
  readonly repeats?: true;
  readonly parse: (text: string, where: string) => T;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec<unknown>>>;

/** Parsed values by kebab-case name; `undefined` where an option was not given. */
export type OptionValues<S extends OptionSpecs> = { readonly [K in keyof S]?: ReturnType<S[K]['parse']> };

/** A parsed command line. */
export interface CommandLine<S extends OptionSpecs> {
  readonly options: OptionValues<S>;
  readonly operands: readonly string[];
}

export interface CommandShape<S extends OptionSpecs> {
  /** Shown in the help, e.g. `ndsrun [options] [--] script [args...]`. */
  readonly usage: string;
  readonly description: string;
  /** Command lines that the help begins with. */
  readonly examples: readonly string[];
  readonly specs: S;
  /** Whether options end at the first operand: those after it belong to the script. */
  readonly stopAtOperand: boolean;
}

/**
 * Parses arguments; `--` ends the options.
 *
 * @throws NdsError `ERR_USAGE` for an unknown option, a bad value, or one option given twice with different values.
 */
export function parseCommandLine<S extends OptionSpecs>(shape: CommandShape<S>, args: readonly string[]): CommandLine<S> {
  const given = new Map<string, { text: string; where: string }[]>();
  const command = commandFor(shape, (name, text, where) => {
    const { short } = shape.specs[name] ?? {};
    // commander reads -tp as -t with the value p.
    const letters = `${short}${text.replace(/[=\d].*/, '')}`;
    const answer = short === undefined ? null : answerTo(letters, shape.specs);
    if (answer !== null) throw new NdsError('ERR_USAGE', `Expected a known option but received ${letters}: ${answer}`);
    const earlier = given.get(name) ?? [];
    if (earlier[0] !== undefined && earlier[0].text !== text && !shape.specs[name]?.repeats) {
      throw new NdsError('ERR_USAGE', `Expected one value for --${name} but received "${earlier[0].text}" and "${text}"`);
    }
    given.set(name, [...earlier, { text, where }]);
  });
  try {
    command.parse(args, { from: 'user' });
  } catch (error) {
    throw error instanceof CommanderError ? usageError(error, shape.specs) : error;
  }
  const options: Record<string, unknown> = {};
  for (const [name, texts] of given) {
    const values = texts.map(({ text, where }) => shape.specs[name]?.parse(text, where));
    options[name] = shape.specs[name]?.repeats ? values.flat() : values[0];
  }
  return { options: options as OptionValues<S>, operands: command.args };
}

/** Options from variables `<prefix><NAME>`; an empty variable counts as not given. */
export function parseEnvironment<S extends OptionSpecs>(specs: S, prefix: string, env: Environment): OptionValues<S> {
  const options: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs)) {
    const variables = [name, ...(spec.also ?? [])].map((one) => prefix + one.toUpperCase().replaceAll('-', '_'));
    const [given, other] = variables.filter((variable) => env[variable]);
    if (given === undefined) continue;
    if (other !== undefined && env[other] !== env[given]) {
      throw new NdsError('ERR_USAGE', `Expected ${given} and ${other} to agree but received "${env[given]}" and "${env[other]}"`);
    }
    options[name] = spec.parse(env[given] ?? '', given);
  }
  return options as OptionValues<S>;
}

/** Receives an option's kebab-case name, its text (`true` for a flag) and its spelling. */
export type OnOption = (name: string, text: string, where: string) => void;

/** The parser of a command line; `onOption` hears of each option in order. */
export function commandFor<S extends OptionSpecs>(shape: CommandShape<S>, onOption: OnOption): Command {
  const [name = 'ndsrun', ...usage] = shape.usage.split(' ');
  const command = new Command(name).usage(usage.join(' ')).description(shape.description).argument('[operands...]');
  command
    .exitOverride()
    .configureOutput({ writeErr: () => {}, writeOut: () => {} })
    .helpOption(false);
  command.configureHelp({ visibleArguments: () => [] });
  if (shape.stopAtOperand) command.passThroughOptions();
  for (const [kebab, spec] of Object.entries(shape.specs)) {
    const names = [kebab, ...(spec.also ?? [])];
    for (const spelling of new Set(names.flatMap((name) => [name, name.replaceAll('-', '_')]))) {
      const flags = `${spec.short && spelling === kebab ? `${spec.short}, ` : ''}--${spelling}${spec.value === null ? '' : ` <${spec.value}>`}`;
      const option = new Option(flags, spec.help);
      if (spelling !== kebab || spec.hidden) option.hideHelp();
      command.addOption(option);
      command.on(`option:${option.name()}`, (text: string | null) => onOption(kebab, text ?? 'true', `--${spelling}`));
    }
  }
  return command;
}

function usageError(error: CommanderError, specs: OptionSpecs): NdsError {
  const option = /'(?:-\w, )?(--?[^' =]+)/.exec(error.message)?.[1] ?? '';
  if (error.code === 'commander.unknownOption') {
    const answer = answerTo(option, specs);
    const near = nearest(
      option,
      Object.entries(specs).flatMap(([name, { hidden }]) => (hidden ? [] : [`--${name}`])),
    );
    const hint = answer === null ? (near === null ? '' : ` (did you mean ${near}?)`) : `: ${answer}`;
    return new NdsError('ERR_USAGE', `Expected a known option but received ${option}${hint}`);
  }
  if (error.code === 'commander.optionMissingArgument') {
    return new NdsError('ERR_USAGE', `Expected a value for ${option} but received none`);
  }
  return new NdsError('ERR_USAGE', error.message.replace(/^error: /, ''));
}

/** What another tool's option is here; null for one that is not known. */
function answerTo(option: string, specs: OptionSpecs): string | null {
  // --n is an option, and -n llama.cpp's number of tokens.
  if (option === '-n') return '--max-tokens is how many tokens, --n how many continuations';
  return foreignAnswer(option, Object.keys(specs).map(camelCase), (name) => `--${kebabCase(name)}`);
}
