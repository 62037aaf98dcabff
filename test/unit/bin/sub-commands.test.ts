/** The hint at a sub-command for a script that was not found. */
import t from 'tap';
import { commandHint, hintAtCommand, subCommands, unknownCommand } from '../../../bin/sub-commands.ts';
import { checkScript } from '../../../launcher/script.ts';
import { NdsError } from '../../../protocol/errors.ts';

t.test('a word that is no script may be a command', async (t) => {
  const hinted = (script: string) => () => {
    try {
      checkScript({ script, noNode: false });
    } catch (error) {
      throw hintAtCommand(error, script);
    }
  };
  t.throws(hinted('genrate'), { code: 'ERR_NOT_FOUND', message: /genrate, which does not exist .*did you mean ndsrun generate\?/ });
  t.throws(hinted('./none.ts'), { code: 'ERR_NOT_FOUND', message: /none\.ts, which does not exist$/ });
  t.throws(hinted('.'), { code: 'ERR_USAGE', message: /Expected a file for the script/ });
});

t.test('commands of other tools', async (t) => {
  t.match(commandHint('serve'), /there is no HTTP server/);
  t.equal(commandHint('complete'), ' (that is ndsrun generate here)');
  t.equal(commandHint('torchrun'), ' (that is ndsrun run here)');
  t.equal(commandHint('generate'), ' (commands come first: ndsrun generate [options])');
  t.equal(commandHint('frobnicate'), '');
  t.match(unknownCommand('nothing').message, subCommands.map(({ name }) => name).join(', '));
  t.match(unknownCommand('genrate').message, /did you mean ndsrun generate\?/);
});

t.test("a model's folder in place of a script", async (t) => {
  const model = t.testdir({ 'config.json': '{}' });
  const error = new NdsError('ERR_USAGE', 'Expected a file');
  t.match(hintAtCommand(error, model), { message: `Expected a file (a model's folder: ndsrun generate ${model} PROMPT)` });
  t.equal(hintAtCommand(error, t.testdir({})), error);
});
