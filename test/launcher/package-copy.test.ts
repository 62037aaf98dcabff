/** A script's own `import 'nano-dist-spec'` gets the copy of the ndsrun that runs it, wherever the script is. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { findPackageRoot } from '../../native/tools/sources.mjs';
import { executable, ndsrun } from '../helpers/launcher.ts';

const { version } = JSON.parse(readFileSync(join(findPackageRoot(), 'package.json'), 'utf8'));

/** A folder outside the checkout, with a path that URLs spell differently. */
function makeFolder(t: Test): string {
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'a script ü%20'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const imported = `import { LLM } from 'nano-dist-spec'; console.log(typeof LLM.load);`;
const required = `const { LLM } = require('nano-dist-spec'); console.log(typeof LLM.load);`;
const scripts: Record<string, string> = {
  'a.ts': imported,
  'a.mts': imported,
  'a.js': imported,
  'a.mjs': imported,
  'dynamic.cjs': `import('nano-dist-spec').then(({ LLM }) => console.log(typeof LLM.load));`,
  'a.cjs': required,
  'required.js': required,
  'a.cts': required,
  'required.ts': required,
  'equals.cts': `import nds = require('nano-dist-spec'); console.log(typeof nds.LLM.load);`,
};

t.test('where none is installed', async (t) => {
  const folder = makeFolder(t);
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), text);
    const { stdout, stderr } = await ndsrun(['--nproc-per-node=1', name], { cwd: folder });
    t.equal(stdout, 'function\n', `${name}: ${stderr}`);
  }
});

t.test('a Node whose require() takes no ES modules says so', async (t) => {
  const folder = makeFolder(t);
  writeFileSync(join(folder, 'a.cjs'), required);
  const env = { ...process.env, NODE_OPTIONS: '--no-experimental-require-module' };
  const ended = promisify(execFile)(process.execPath, [executable, '--nproc-per-node=1', 'a.cjs'], { cwd: folder, env });
  await t.rejects(ended, { code: 1, stderr: /dynamic import\(\) which is available in all CommonJS modules/ });
});

t.test('where the project has another', async (t) => {
  const folder = makeFolder(t);
  const copy = join(folder, 'node_modules', 'nano-dist-spec');
  mkdirSync(copy, { recursive: true });
  writeFileSync(join(copy, 'index.js'), `throw new Error('the other copy');\n`);
  mkdirSync(join(folder, 'scripts'));
  const run = async (copyVersion: string, name: string) => {
    const exports = { 'nds-source': './missing.ts', default: './index.js' };
    writeFileSync(join(copy, 'package.json'), JSON.stringify({ name: 'nano-dist-spec', version: copyVersion, exports }));
    writeFileSync(join(folder, 'scripts', name), scripts[name] ?? '');
    return await ndsrun(['--nproc-per-node=2', join('scripts', name)], { cwd: folder });
  };
  for (const name of ['a.ts', 'a.mjs', 'a.cjs']) {
    const { stdout, stderr } = await run(version, name);
    t.equal(stdout.replaceAll(/^\[rank [01]\] /gm, ''), 'function\nfunction\n', stderr);
    t.notMatch(stderr, /^ndsrun: /m);
  }
  const { stdout, stderr } = await run('0.0.1', 'a.mjs');
  t.match(stdout, /function\n.*function\n/);
  t.match(stderr, `ndsrun: the script gets nano-dist-spec ${version} of this ndsrun, not 0.0.1 of ${copy} (npx ndsrun runs that)\n`);
});
