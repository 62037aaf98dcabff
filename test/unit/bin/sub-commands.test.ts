/** The hint at a sub-command for a script that was not found. */
import t from 'tap';
import { hintAtCommand } from '../../../bin/sub-commands.ts';
import { checkScript } from '../../../launcher/script.ts';

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
