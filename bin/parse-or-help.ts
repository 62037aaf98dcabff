/** The command line of a command that explains itself. */
import { type CommandLine, type CommandShape, type OptionSpecs, parseCommandLine } from '../launcher/command-line.ts';
import { helpFor } from '../launcher/help.ts';

/** Parses arguments; null after `--help` or `-h`, for which it prints the help. @throws NdsError as `parseCommandLine`. */
export function parseOrHelp<S extends OptionSpecs>(shape: CommandShape<S>, args: readonly string[]): CommandLine<S> | null {
  if (!args.includes('--help') && !args.includes('-h')) return parseCommandLine(shape, args);
  process.stdout.write(helpFor(shape));
  return null;
}
