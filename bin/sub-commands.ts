/** The commands of `ndsrun`: one table for dispatch, help and documentation. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { NdsError } from '../protocol/errors.ts';
import { nearest } from '../protocol/nearest.ts';

/** Runs a command. @returns its exit code. */
export type Command = (args: readonly string[]) => number | Promise<number>;

/** A command. */
export interface SubCommand {
  /** One word, or two where it belongs to another command: `bench spec`. */
  readonly name: string;
  /** What it does, in the third person and at most 54 characters. */
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

/** Every command, in the order of the help. Each explains itself with `--help`. */
export const subCommands: readonly SubCommand[] = [
  {
    name: 'run',
    summary: 'runs a script on several ranks; run may be left out',
    load: async () => (await import('./commands/run.ts')).run,
  },
  {
    name: 'generate',
    summary: 'prints text, or JSON with log-probabilities',
    load: async () => (await import('./commands/generate.ts')).generate,
  },
  {
    name: 'chat',
    summary: 'talks at the terminal, or line by line from a pipe',
    load: async () => (await import('./commands/chat.ts')).chat,
  },
  {
    name: 'bench',
    summary: "measures prefill and decode beside the machine's limits",
    load: async () => (await import('./commands/bench.ts')).bench,
  },
  {
    name: 'bench latency',
    summary: 'measures one sequence, at depths, as llama-bench does',
    load: async () => (await import('./commands/bench-latency.ts')).benchLatency,
  },
  {
    name: 'bench throughput',
    summary: 'measures sequences that decode together, by number',
    load: async () => (await import('./commands/bench-throughput.ts')).benchThroughput,
  },
  {
    name: 'bench spec',
    summary: 'compares speculative with plain decoding',
    load: async () => (await import('./commands/bench-spec.ts')).benchSpec,
  },
  {
    name: 'bench comm',
    summary: 'measures what ranks exchange, by size',
    load: async () => (await import('./commands/bench-comm.ts')).benchComm,
  },
  {
    name: 'bench kv-utilization',
    summary: 'compares paged with contiguous KV memory',
    load: async () => (await import('./commands/bench-kv-utilization.ts')).benchKvUtilization,
  },
  {
    name: 'bench accuracy',
    summary: 'compares quantized weights with those as stored',
    load: async () => (await import('./commands/bench-accuracy.ts')).benchAccuracy,
  },
  {
    name: 'replay',
    summary: "runs a recorded job's steps again and compares them",
    load: async () => (await import('./commands/replay.ts')).replay,
  },
  {
    name: 'pull',
    summary: "downloads a model of the hub into Python's cache",
    load: async () => (await import('./commands/pull.ts')).pull,
  },
  {
    name: 'models',
    summary: 'lists shipped and cached models, or removes one',
    load: async () => (await import('./commands/models.ts')).models,
  },
  {
    name: 'cache',
    summary: 'lists the quantized shards that loads keep, or clears',
    load: async () => (await import('./commands/cache.ts')).cache,
  },
  {
    name: 'doctor',
    summary: 'shows what this machine has, and what runs on it',
    load: async () => (await import('./commands/doctor.ts')).doctor,
  },
  {
    name: 'build',
    summary: 'builds the native core where none fits, and for CUDA',
    load: async () => (await import('./commands/build.ts')).build,
  },
];

/** The command whose name the arguments begin with, the longest name first, and the arguments after it. */
export function findCommand(args: readonly string[]): { readonly command: SubCommand; readonly rest: readonly string[] } | null {
  for (const numWords of [2, 1]) {
    const name = args.slice(0, numWords).join(' ');
    const command = subCommands.find((one) => one.name === name && args.length >= numWords);
    if (command !== undefined) return { command, rest: args.slice(numWords) };
  }
  return null;
}

/** Commands of vLLM, llama.cpp, Ollama and torchrun, and ours in their place; of several, those that there are. */
const foreignCommands: Readonly<Record<string, readonly string[]>> = {
  complete: ['generate'],
  completion: ['generate'],
  prompt: ['generate'],
  infer: ['generate'],
  'run-batch': ['generate'],
  launch: ['run'],
  torchrun: ['run'],
  exec: ['run'],
  benchmark: ['bench'],
  env: ['doctor'],
  info: ['doctor'],
  check: ['doctor'],
  'collect-env': ['doctor'],
  download: ['pull'],
  list: ['models'],
  ls: ['models'],
  rm: ['models'],
  install: ['build'],
  compile: ['build'],
};
const servers = ['serve', 'server', 'api-server'];

/**
 * What a word that is no command stands for, to follow the message; empty where nothing is near.
 * @param word - the first word, without options
 */
export function commandHint(word: string): string {
  const names = subCommands.map(({ name }) => name).filter((name) => !name.includes(' '));
  if (names.includes(word)) return ` (commands come first: ndsrun ${word} [options])`;
  if (servers.includes(word)) return ' (there is no HTTP server: ndsrun generate prints text, and a script with LLM.load can serve)';
  const foreign = Object.hasOwn(foreignCommands, word) ? (foreignCommands[word] ?? []) : [];
  const ours = foreign.find((name) => names.includes(name));
  if (ours !== undefined) return ` (that is ndsrun ${ours} here)`;
  const near = nearest(word, names);
  return near === null ? '' : ` (commands come first: did you mean ndsrun ${near}?)`;
}

/** The error of a launch, with a hint where the script is a command, misplaced or misspelt, or a model's folder. */
export function hintAtCommand(error: unknown, script: string): unknown {
  if (!(error instanceof NdsError)) return error;
  const isModel = error.code === 'ERR_USAGE' && existsSync(join(script, 'config.json'));
  const isWord = error.code === 'ERR_NOT_FOUND' && /^[\w-]+$/.test(script);
  const hint = isModel ? ` (a model's folder: ndsrun generate ${script} PROMPT)` : isWord ? commandHint(script) : '';
  return hint === '' ? error : new NdsError(error.code, `${error.message}${hint}`, { cause: error });
}

/** The error for a command that there is none of. */
export function unknownCommand(name: string): NdsError {
  const hint = commandHint(name) || `: the commands are ${subCommands.map((one) => one.name).join(', ')}`;
  return new NdsError('ERR_NOT_FOUND', `Expected a command but received ${name}${hint}`);
}
