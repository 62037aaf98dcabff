/** What a script may be: TypeScript or JavaScript, ES module or CommonJS, with `using` or without. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Script } from 'node:vm';
import t, { type Test } from 'tap';
import { ndsrun } from '../helpers/launcher.ts';

/** Blocks that throw in some rounds: each error is caught once, in its round. */
const blocks = `
declare const console: { log(text: string): void };
async function main() {
  const log: string[] = [];
  for (const round of [1, 2, 3, 4]) {
    try {
      await using outer = { async [Symbol.asyncDispose]() { log.push('closed'); } };
      using inner = { [Symbol.dispose]() { if (round === 3) throw new Error('dispose'); } };
      if (round === 1) throw new Error('body');
      log.push('ok');
    } catch (error) {
      log.push((error as Error).message);
    }
  }
  console.log(log.join());
}
main();
`;
const expectedRounds = 'closed,body,ok,closed,ok,closed,dispose,ok,closed\n';

/** The path of a script in a folder of its own. */
function write(t: Test, name: string, text: string): string {
  const path = join(t.testdir({}), name);
  writeFileSync(path, text);
  return path;
}

for (const name of ['loop.ts', 'loop.mts', 'loop.cts']) {
  t.test(`using in a loop: ${name}`, async (t) => {
    const { stdout, stderr } = await ndsrun(['--nproc-per-node=1', write(t, name, blocks)]);
    t.equal(stdout, expectedRounds, stderr);
  });
}

t.test('CommonJS requires the package', async (t) => {
  const texts = {
    'required.cjs': `const { LLM } = require('nano-dist-spec'); console.log(typeof LLM.load);`,
    'required.cts': `const { LLM } = require('nano-dist-spec'); console.log(typeof LLM.load);`,
    'imported.cts': `import { LLM } from 'nano-dist-spec'; console.log(typeof LLM.load);`,
  };
  for (const [name, text] of Object.entries(texts)) {
    // A script that names the package needs the sources: the argument's ending decides which ndsrun runs it.
    const { stdout, stderr } = await ndsrun(['--nproc-per-node=1', write(t, name, text), 'from.ts']);
    t.equal(stdout, 'function\n', `${name}: ${stderr}`);
  }
});

t.test('JavaScript with using', async (t) => {
  const script = write(t, 'using.mjs', 'await using x = { async [Symbol.asyncDispose]() { console.log("closed"); } };\n');
  const { code, stdout, stderr } = await ndsrun(['--nproc-per-node=1', script]);
  const isParsed = (() => {
    try {
      return new Script('{ using x = null; }') !== null;
    } catch {
      return false;
    }
  })();
  if (isParsed) return t.equal(stdout, 'closed\n', stderr);
  t.equal(code, 64);
  t.match(
    stderr,
    /^ndsrun: Expected JavaScript that Node \S+ can parse but received `using` in \S+using\.mjs: name it \.mts, .*\[ERR_USAGE\]\n$/,
  );
});

t.test('a TMPDIR that cannot be written', async (t) => {
  const { code, stderr } = await ndsrun(['--nproc-per-node=1', write(t, 'nothing.ts', '')], { env: { TMPDIR: '/proc' } });
  t.equal(code, 70);
  t.match(stderr, /^ndsrun: Expected a folder for temporary files in TMPDIR but received \/proc: .*\[ERR_SYSTEM\]\n$/);
});
