/** The command line: a sub-command, or a script to run on every rank. */
import { helpFor } from '../launcher/command-line.ts';
import { launchShape } from '../launcher/option-specs.ts';
import { exitCodes, NdsError } from '../protocol/errors.ts';
import { subCommands } from './sub-commands.ts';

type Command = (args: readonly string[]) => Promise<number>;

const commands: Readonly<Record<(typeof subCommands)[number] | 'run', () => Promise<Command>>> = {
  generate: async () => (await import('./commands/generate.ts')).generate,
  bench: async () => (await import('./commands/bench.ts')).bench,
  replay: async () => (await import('./commands/replay.ts')).replay,
  doctor: async () => (await import('./commands/doctor.ts')).doctor,
  run: async () => (await import('./commands/run.ts')).run,
};

process.on('uncaughtException', (error) => {
  process.stderr.write(`ndsrun: internal error: ${error.stack ?? error}\n`);
  process.exit(exitCodes.ERR_INTERNAL);
});

process.exit(await main(process.argv.slice(2)));

async function main(args: readonly string[]): Promise<number> {
  const [first] = args;
  if (first === undefined || first === '--help' || first === '-h') {
    const commands = subCommands.map((name) => `ndsrun ${name}`).join(', ');
    const description = `${launchShape.description}\nCommands: ${commands}; ndsrun COMMAND --help; ndsrun --version.`;
    const help = helpFor({ ...launchShape, description });
    (first === undefined ? process.stderr : process.stdout).write(help);
    return first === undefined ? exitCodes.ERR_USAGE : 0;
  }
  try {
    const name = subCommands.find((command) => command === first);
    const command = await commands[name ?? 'run']();
    return await command(name === undefined ? args : args.slice(1));
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    process.stderr.write(`ndsrun: ${error.message} [${error.code}]\n`);
    return error.exitCode;
  }
}
