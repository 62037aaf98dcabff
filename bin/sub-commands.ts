/** The sub-commands of `ndsrun`. */
import { nearest } from '../launcher/nearest.ts';
import { NdsError } from '../protocol/errors.ts';

/** `ndsrun COMMAND --help` explains each. */
export const subCommands = ['generate', 'bench', 'replay', 'doctor'] as const;

/** The error of a launch, with a hint where the script that it did not find may be a sub-command out of place or misspelt. */
export function hintAtCommand(error: unknown, script: string): unknown {
  const isMissing = error instanceof NdsError && error.code === 'ERR_NOT_FOUND' && /^[\w-]+$/.test(script);
  if (!isMissing) return error;
  const hint = `(commands come first: did you mean ndsrun ${nearest(script, subCommands)}?)`;
  return new NdsError(error.code, `${error.message} ${hint}`, { cause: error });
}
