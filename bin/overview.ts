/** The help of `ndsrun` itself: examples and every command. */
import { subCommands } from './sub-commands.ts';

const examples = [
  'ndsrun --nproc-per-node 2 script.ts',
  'ndsrun generate MODEL "Once upon a time" --max-tokens 64',
  'ndsrun bench spec --target MODEL --draft SMALLER_MODEL',
];

/** What `ndsrun --help` prints, at most 80 columns wide. */
export function overview(): string {
  const width = Math.max(...subCommands.map(({ name }) => name.length));
  return `Examples:
${examples.map((line) => `  ${line}`).join('\n')}

Usage: ndsrun [options] [--] script [args...]
       ndsrun COMMAND [options] [operands...]

Starts one process per GPU, or per share of the CPU, as torchrun does; commands
need no script.

Commands:
${subCommands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`).join('\n')}

ndsrun help COMMAND lists a command's options, and ndsrun help run those of the
launcher, which most commands take too. ndsrun --version prints the version.
`;
}
