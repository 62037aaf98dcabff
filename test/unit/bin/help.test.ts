/** The help of every command: an example first, at most 80 columns, the launcher's options by reference. */
import t from 'tap';
import { overview } from '../../../bin/overview.ts';
import { findCommand, subCommands } from '../../../bin/sub-commands.ts';

const widest = (text: string): number => Math.max(...text.split('\n').map((line) => line.length));

/** What a command prints, on a terminal of 200 columns. */
async function helpOf(name: string): Promise<string> {
  const { write } = process.stdout;
  const { columns } = process.stdout;
  let text = '';
  try {
    process.stdout.columns = 200;
    process.stdout.write = (chunk: string | Uint8Array) => {
      text += chunk;
      return true;
    };
    const command = subCommands.find((one) => one.name === name);
    await (await command?.load())?.(['--help']);
  } finally {
    Object.assign(process.stdout, { write, columns });
  }
  return text;
}

t.test('the overview has every command', async (t) => {
  const text = overview();
  for (const { name, summary } of subCommands) t.match(text, `  ${name} `.trimEnd(), summary);
  t.match(text, /^Examples:\n {2}ndsrun /);
  t.ok(widest(text) <= 80, `${widest(text)} columns`);
});

t.test('every command explains itself', async (t) => {
  for (const { name } of subCommands) {
    const text = await helpOf(name);
    t.match(text, /^Examples?:\n {2}\S/, name);
    t.match(text, name === 'run' ? 'Usage: ndsrun [options]' : `Usage: ndsrun ${name}`, name);
    t.ok(widest(text) <= 80, `${name}: ${widest(text)} columns`);
  }
});

t.test('the options of the launcher are listed once', async (t) => {
  t.match(await helpOf('run'), /--shutdown-timeout <SECONDS>/);
  const text = await helpOf('generate');
  t.match(text, /\nOptions of the launcher:\n {2}--nproc-per-node .*\n.*\n {2}The others, but not --no-node: ndsrun help run\n$/);
  t.notMatch(text, /--shutdown-timeout/);
  t.match(await helpOf('replay'), /The others, but not --record and --no-node: ndsrun help run\n$/);
});

t.test('a command is the first words of the arguments', async (t) => {
  const found = (...args: string[]) => {
    const { command, rest } = findCommand(args) ?? {};
    return [command?.name, rest];
  };
  t.same(found('bench', 'spec', '--k', '2'), ['bench spec', ['--k', '2']]);
  t.same(found('bench', 'MODEL'), ['bench', ['MODEL']]);
  t.same(found('bench'), ['bench', []]);
  t.same(found('run', 'script.ts'), ['run', ['script.ts']]);
  t.same(found('script.ts', 'bench'), [undefined, undefined]);
});
