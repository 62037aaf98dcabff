/** Where output ends, and what ranks hear of the terminal. */
import t from 'tap';
import { parseLaunchOptions } from '../../../launcher/options.ts';
import type { RankPlan } from '../../../launcher/plan.ts';
import { type OutputStyle, prefixOf, routesOf, type Terminals, terminalEnv } from '../../../launcher/terminal.ts';

const terminal = { columns: 100, colorDepth: 8 };
const both: Terminals = { stdout: terminal, stderr: terminal };
const none: Terminals = { stdout: null, stderr: null };
const planOf = (rank: number): RankPlan => ({ rank, localRank: rank, command: 'node', args: [], env: {} });

interface Case {
  readonly args?: string[];
  readonly numRanks?: number;
  readonly rank?: number;
  readonly style?: OutputStyle;
  readonly to?: Terminals;
  readonly env?: NodeJS.ProcessEnv;
}

function outcome({ args = [], numRanks = 2, rank = 0, style = 'lines', to = both, env = {} }: Case) {
  const options = parseLaunchOptions([...args, 'a.ts'], {});
  const routes = routesOf(planOf(rank), options, numRanks, style, to);
  const direct = (['stdout', 'stderr'] as const).filter((name) => routes[name].isDirect);
  return [direct, terminalEnv(planOf(rank), options, routes, to, env)];
}

t.test('a single rank has the terminal itself', async (t) => {
  const single = (change: Case) => outcome({ numRanks: 1, ...change });
  t.same(single({}), [['stdout', 'stderr'], {}]);
  t.same(single({ to: none }), [[], {}]);
  t.same(single({ to: { stdout: null, stderr: terminal } }), [['stderr'], {}], 'no colour in a file');
  t.same(single({ args: ['--tee=1', '--log-dir=x'] }), [[], {}], 'a log file has no colour either');
  t.same(single({ args: ['--report=x'] }), [['stdout'], { FORCE_COLOR: '2', COLUMNS: '100' }], 'a report needs the end of stderr');
});

t.test('several ranks hear of it', async (t) => {
  t.same(outcome({}), [[], { FORCE_COLOR: '2', COLUMNS: '91' }]);
  t.same(outcome({ args: ['--log-line-prefix-template='] }), [[], { FORCE_COLOR: '2', COLUMNS: '100' }]);
  t.same(outcome({ to: none }), [[], {}]);
  t.same(outcome({ to: { stdout: terminal, stderr: null } }), [[], {}]);
  t.same(outcome({ args: ['--log-dir=x'] }), [[], {}]);
  t.same(outcome({ args: ['--local-ranks-filter=1'] }), [[], {}], 'what nobody sees needs no colour');
  t.same(outcome({ style: 'rank0' }), [['stdout', 'stderr'], {}]);
  t.same(outcome({ style: 'rank0', rank: 1 }), [[], { FORCE_COLOR: '2', COLUMNS: '91' }]);
  for (const [depth, level] of [
    [4, '1'],
    [24, '3'],
  ] as const) {
    const deep = { columns: 80, colorDepth: depth };
    t.match(outcome({ to: { stdout: deep, stderr: deep } })[1], { FORCE_COLOR: level });
  }
  const dumb = { columns: 80, colorDepth: 1 };
  t.same(outcome({ to: { stdout: dumb, stderr: dumb } })[1], { COLUMNS: '71' });
});

t.test("the user's own choice stands", async (t) => {
  for (const name of ['NO_COLOR', 'FORCE_COLOR', 'NODE_DISABLE_COLORS']) t.same(outcome({ env: { [name]: '' } })[1], { COLUMNS: '91' });
  t.same(outcome({ env: { COLUMNS: '40' } })[1], { FORCE_COLOR: '2' });
});

t.test('the prefix', async (t) => {
  const prefix = (...args: string[]) => prefixOf(parseLaunchOptions([...args, 'a.ts'], {}), planOf(3));
  t.equal(prefix(), '[rank 3] ');
  t.equal(prefix('--log-line-prefix-template='), '');
  t.equal(prefix('--role=decode', '--log-line-prefix-template', '${role_name}${local_rank}/${other} '), 'decode3/${other} ');
});
