/** The commands of `ndsrun`: one table for dispatch, help and documentation. */
import { nearest } from '../launcher/nearest.ts';
import { NdsError } from '../protocol/errors.ts';

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
    name: 'bench',
    summary: "measures prefill and decode beside the machine's limits",
    load: async () => (await import('./commands/bench.ts')).bench,
  },
  {
    name: 'bench spec',
    summary: 'compares speculative with plain decoding',
    load: async () => (await import('./commands/bench-spec.ts')).benchSpec,
  },
  {
    name: 'bench kv-utilization',
    summary: 'compares paged with contiguous KV memory',
    load: async () => (await import('./commands/bench-kv-utilization.ts')).benchKvUtilization,
  },
  {
    name: 'replay',
    summary: "runs a recorded job's steps again and compares them",
    load: async () => (await import('./commands/replay.ts')).replay,
  },
  {
    name: 'doctor',
    summary: 'shows what this machine has, and what is missing',
    load: async () => (await import('./commands/doctor.ts')).doctor,
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

/**
 * The error of a launch; for a script that was not found, with a hint at a sub-command that is misplaced or misspelt.
 */
export function hintAtCommand(error: unknown, script: string): unknown {
  const isMissing = error instanceof NdsError && error.code === 'ERR_NOT_FOUND' && /^[\w-]+$/.test(script);
  if (!isMissing) return error;
  const names = subCommands.map(({ name }) => name).filter((name) => !name.includes(' '));
  const hint = `(commands come first: did you mean ndsrun ${nearest(script, names)}?)`;
  return new NdsError(error.code, `${error.message} ${hint}`, { cause: error });
}

/** The error for a command that there is none of. */
export function unknownCommand(name: string): NdsError {
  const names = subCommands.map((one) => one.name).join(', ');
  return new NdsError('ERR_NOT_FOUND', `Expected a command among ${names} but received ${name}`);
}
