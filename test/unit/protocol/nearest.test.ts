/** The nearest name: by spelling, relative to its length, and by meaning. */
import t from 'tap';
import { nearest } from '../../../protocol/nearest.ts';

t.test('a name that is near', async (t) => {
  const cases: [name: string, candidates: string[], expected: string][] = [
    ['genrate', ['bench', 'doctor', 'generate'], 'generate'],
    ['egnerate', ['bench', 'generate'], 'generate'],
    ['--log', ['--tee', '--log-dir', '--report'], '--log-dir'],
    ['--step_timout', ['--startup-timeout', '--step-timeout'], '--step-timeout'],
    ['maxModelLength', ['maxModelLen', 'maxNumSeqs'], 'maxModelLen'],
    ['max_model_len', ['maxModelLen', 'maxNumSeqs'], 'maxModelLen'],
    ['modle', ['draft', 'model'], 'model'],
  ];
  for (const [name, candidates, expected] of cases) t.equal(nearest(name, candidates), expected, name);
});

t.test('nothing is near', async (t) => {
  const cases: [name: string, candidates: string[]][] = [
    ['serve', ['bench', 'doctor', 'generate', 'replay']],
    ['xyz', []],
    ['--top-n', ['--top-k', '--top-p']],
    ['minModelLen', ['maxModelLen']],
    ['--no-json', ['--json']],
    ['--node', ['--no-node']],
    ['disable-cache', ['enable-cache']],
    ['x', ['n']],
    ['--re', ['--report']],
  ];
  for (const [name, candidates] of cases) t.equal(nearest(name, candidates), null, name);
});
