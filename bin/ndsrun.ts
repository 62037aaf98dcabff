/** The command line: a command, or a script to run on every rank. */
import { isHangupIgnored } from '../launcher/hangup.ts';
import { exitCodes, NdsError } from '../protocol/errors.ts';
import { overview } from './overview.ts';
import { type Command, findCommand, unknownCommand } from './sub-commands.ts';

if (isHangupIgnored(process.env)) process.on('SIGHUP', () => {});

process.on('uncaughtException', (error) => {
  process.stderr.write(`ndsrun: internal error: ${error.stack ?? error}\n`);
  process.exit(exitCodes.ERR_INTERNAL);
});

process.exit(await main(process.argv.slice(2)));

async function main(args: readonly string[]): Promise<number> {
  const [first] = args;
  if (first === undefined || first === '--help' || first === '-h') {
    (first === undefined ? process.stderr : process.stdout).write(overview());
    return first === undefined ? exitCodes.ERR_USAGE : 0;
  }
  try {
    return first === 'help' ? await help(args.slice(1)) : await dispatch(args);
  } catch (error) {
    if (!(error instanceof NdsError)) throw error;
    process.stderr.write(`ndsrun: ${error.message} [${error.code}]\n`);
    return error.exitCode;
  }
}

async function dispatch(args: readonly string[]): Promise<number> {
  const found = findCommand(args);
  const run: Command = found === null ? (await import('./commands/run.ts')).run : await found.command.load();
  return run(found?.rest ?? args);
}

/** `ndsrun help [COMMAND]`. @throws NdsError `ERR_NOT_FOUND` for a command that there is none of. */
async function help(args: readonly string[]): Promise<number> {
  const found = findCommand(args);
  if (found !== null && found.rest.length === 0) return (await found.command.load())(['--help']);
  if (args.length > 0) throw unknownCommand(args.join(' '));
  process.stdout.write(overview());
  return 0;
}
