/** The sub-commands of `ndsrun`. */
import { nearest } from '../launcher/nearest.ts';
import { NdsError } from '../protocol/errors.ts';

/** Names of the sub-commands; each explains itself with `--help`. */
export const subCommands = ['generate', 'bench', 'replay', 'doctor'] as const;

/**
 * The error of a launch; for a script that was not found, with a hint at a sub-command that is misplaced or misspelt.
 */
export function hintAtCommand(error: unknown, script: string): unknown {
  const isMissing = error instanceof NdsError && error.code === 'ERR_NOT_FOUND' && /^[\w-]+$/.test(script);
  if (!isMissing) return error;
  const hint = `(commands come first: did you mean ndsrun ${nearest(script, subCommands)}?)`;
  return new NdsError(error.code, `${error.message} ${hint}`, { cause: error });
}
