/** A checkout's compiled folder: one for each state of the sources, whole, whoever else compiles at the same time. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, realpathSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { compiledFolder } from '../../../bin/compiled.mjs';

/** A checkout of three files, whose entry imports a TypeScript file and one that is JavaScript. */
function makeCheckout(t: Test): string {
  const entry = `
    import { plain } from '../native/plain.mjs';
    import { typed } from './typed.ts';
    interface Blank { readonly lines: string }
    export const both: string = plain + typed;
    export function fail(): never {
      throw new Error('thrown on line 7');
    }`;
  return realpathSync(
    t.testdir({
      rank: { 'entry.ts': entry, 'typed.ts': `export const typed: string = 'typed';\n` },
      native: { 'plain.mjs': `export const plain = 'plain ';\n` },
    }),
  );
}

const load = (folder: string) => import(pathToFileURL(join(folder, 'rank', 'entry.js')).href);

t.test('compiles what changed, and keeps what a process may be running', async (t) => {
  const checkout = makeCheckout(t);
  const first = await compiledFolder(checkout);
  t.equal((await load(first)).both, 'plain typed');
  t.equal(await compiledFolder(checkout), first);
  writeFileSync(join(checkout, 'rank', 'typed.ts'), `export const typed: string = 'again';\n`);
  const second = await compiledFolder(checkout);
  t.equal((await load(second)).both, 'plain again');
  t.same(readdirSync(join(checkout, 'build', 'js')).sort(), [basename(first), basename(second)].sort());
});

t.test('removes a folder that was last used a day ago', async (t) => {
  const checkout = makeCheckout(t);
  const first = await compiledFolder(checkout);
  const twoDaysAgo = Date.now() / 1000 - 2 * 24 * 3600;
  utimesSync(first, twoDaysAgo, twoDaysAgo);
  await compiledFolder(checkout);
  writeFileSync(join(checkout, 'rank', 'typed.ts'), `export const typed = 'again';\n`);
  await compiledFolder(checkout);
  t.ok(existsSync(first), 'used just now');
  utimesSync(first, twoDaysAgo, twoDaysAgo);
  writeFileSync(join(checkout, 'rank', 'typed.ts'), `export const typed = 'once more';\n`);
  await compiledFolder(checkout);
  t.notOk(existsSync(first));
});

t.test('several processes at once', async (t) => {
  const checkout = makeCheckout(t);
  const script = fileURLToPath(new URL('../../../bin/compiled.mjs', import.meta.url));
  const code = `import { compiledFolder } from ${JSON.stringify(pathToFileURL(script).href)};
    const { both } = await import((await compiledFolder(${JSON.stringify(checkout)})) + '/rank/entry.js');
    console.log(both);`;
  const run = () => promisify(execFile)(process.execPath, ['--input-type=module', '--eval', code]);
  const ended = await Promise.all([run(), run(), run(), run()]);
  t.same(
    ended.map(({ stdout }) => stdout),
    Array(4).fill('plain typed\n'),
  );
  t.equal(readdirSync(join(checkout, 'build', 'js')).length, 1);
});

t.test('stack traces name lines of the sources', async (t) => {
  const folder = await compiledFolder(makeCheckout(t));
  const code = `import(${JSON.stringify(pathToFileURL(join(folder, 'rank', 'entry.js')).href)})
    .then(({ fail }) => fail()).catch(({ stack }) => console.log(stack));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--enable-source-maps', '--eval', code]);
  t.match(stdout, /\/rank\/entry\.ts:7:/);
});

t.test('a syntax error names its file', async (t) => {
  const checkout = makeCheckout(t);
  writeFileSync(join(checkout, 'rank', 'typed.ts'), 'export const = 1;\n');
  await t.rejects(compiledFolder(checkout), /rank\/typed\.ts:1:13: ERROR/);
});
