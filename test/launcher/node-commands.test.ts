/** Commands on two nodes: one command line, models that each node finds by its name, and input of node 0 alone. */

import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { freePort } from '../helpers/free-port.ts';
import { Running, type StartOptions } from '../helpers/launcher.ts';

type Node = StartOptions & { readonly args: readonly string[] };

/** Runs `ndsrun generate` on both nodes to their ends, which leave nothing; the test has its folder already. */
async function generate(t: Test, nodes: readonly [Node, Node]) {
  const token = join(t.testdirName, 'token');
  writeFileSync(token, 'the token of the job under test', { mode: 0o600 });
  const place = ['--nnodes=2', '--master-addr=127.0.0.1', `--master-port=${await freePort()}`, `--token-file=${token}`];
  const started = nodes.map(({ args, ...options }, node) => new Running(['generate', `--node-rank=${node}`, ...place, ...args], options));
  const ends = [await (started[0] as Running).ended(), await (started[1] as Running).ended()] as const;
  t.same(
    started.map((running) => running.leftovers()),
    [[], []],
  );
  return ends;
}

const few = ['--max-tokens=4', '--temperature=0'];

t.test('each node finds the model by its name, and node 0 alone reads the prompt', async (t) => {
  const [one, two] = ['one', 'two'].map((name) => join(t.testdirName, name)) as [string, string];
  t.testdir();
  for (const folder of [one, two]) {
    mkdirSync(folder);
    cpSync('examples/models/story-180k', join(folder, 'model'), { recursive: true });
  }
  for (const name of ['model', 'nds:story-180k']) {
    const args = [...few, name, '-'];
    const [zero, other] = await generate(t, [
      { args, cwd: one, input: 'Once upon' },
      { args, cwd: two },
    ]);
    t.same([zero.code, other.code], [0, 0], `${zero.stderr}${other.stderr}`);
    t.match(zero.stdout, /\S/);
    t.equal(other.stdout, '');
  }
});

t.test('a conversation in a file of node 0 alone', async (t) => {
  const file = join(t.testdir({ 'messages.json': '[{"role": "user", "content": "Hi"}]' }), 'messages.json');
  const [zero, other] = await generate(t, [
    { args: [...few, 'nds:story-180k', '--messages', file] },
    { args: [...few, 'nds:story-180k', '--messages', `${file}.elsewhere`] },
  ]);
  // The model has no chat template, which rank 0 finds out.
  t.same([zero.code, other.code], [64, 64], `${zero.stderr}${other.stderr}`);
  t.notMatch(other.stderr, /file of messages/);
});

t.test('a model that one node lacks ends the job on both', async (t) => {
  const folder = t.testdir();
  cpSync('examples/models/story-180k', join(folder, 'model'), { recursive: true });
  const args = [...few, 'model', 'Once'];
  const [zero, other] = await generate(t, [{ args, cwd: folder }, { args }]);
  t.same([zero.code, other.code], [65, 65]);
  for (const { stderr } of [zero, other]) t.match(stderr, /Expected the model of rank 0 on node 1 .* looked for as .*\/model: /);
});

t.test('options that differ have no effect on one of the nodes: refused', async (t) => {
  t.testdir();
  const [zero, other] = await generate(t, [
    { args: ['--max-tokens=4', 'nds:story-180k', 'Once'] },
    { args: ['--max-tokens=5', 'nds:story-5m', 'Once'] },
  ]);
  t.same([zero.code, other.code], [78, 78]);
  for (const { stderr } of [zero, other]) {
    t.match(stderr, /max-tokens: 4 on node 0 .*, 5 on node 1 /);
    t.match(stderr, /model: nds:story-180k on node 0 .*, nds:story-5m on node 1 /);
  }
});
