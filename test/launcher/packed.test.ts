/** The packed package in empty projects, far from this checkout: types, the prebuilt core, the build on first use without CMake, two ranks. */
import type { SpawnOptions } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { addonFolder } from '../../native/load.mjs';
import { findCompiler, which } from '../../native/tools/compilers.mjs';
import { findNvcc } from '../../native/tools/cuda.mjs';
import { prebuiltFolder } from '../../native/tools/prebuilt.mjs';
import { findPackageRoot } from '../../native/tools/sources.mjs';
import { executable } from '../helpers/launcher.ts';
import { scriptsOf } from '../helpers/samples.ts';
import { isFull } from '../helpers/scale.ts';
import { spawnTied } from '../helpers/tied-process.ts';

const checkout = findPackageRoot();
// Not a fixture folder: those lie in the checkout, where Node would find packages that the project does not have.
const dir = mkdtempSync(join(realpathSync(tmpdir()), 'packed-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const project = join(dir, 'project');
const installed = join(project, 'node_modules', 'nano-dist-spec');
const expected = readExpected(join(checkout, 'examples', 'models', 'story-180k', 'expected.json'));

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(program: string, args: readonly string[], options: SpawnOptions): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawnTied(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

async function succeed(program: string, args: readonly string[], options: SpawnOptions): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, options);
  if (code !== 0) throw new Error(`Expected ${program} ${args.join(' ')} to succeed but it ended with ${code}:\n${stdout}${stderr}`);
  return stdout;
}

function readExpected(file: string): { prompt: string; token_ids: number[] } {
  return JSON.parse(readFileSync(file, 'utf8')).cases[0];
}

/**
 * The environment of someone else's shell: no variable of npm's, and only the tools that a build without CMake needs. Without
 * NDS_CUDA=off, a machine with CUDA would build that too.
 */
function bareEnvironment(): Record<string, string> {
  const bin = join(dir, 'bin');
  const [compiler = '', ...args] = findCompiler();
  const tools = { node: process.execPath, npx: which('npx'), sh: which('sh'), env: which('env'), as: which('as'), ld: which('ld') };
  mkdirSync(bin);
  for (const [name, path] of Object.entries(tools)) if (path !== null) symlinkSync(realpathSync(path), join(bin, name));
  // ccache's own g++ would look for the compiler in this PATH, and find this script.
  const path = (process.env['PATH'] ?? '').split(':').filter((folder) => !folder.includes('ccache'));
  const found = which(compiler, { PATH: path.join(':') });
  writeFileSync(join(bin, 'g++'), `#!/bin/sh\nexec ${[found, ...args].join(' ')} "$@"\n`);
  chmodSync(join(bin, 'g++'), 0o755);
  return { PATH: bin, HOME: dir, NDS_CACHE_DIR: join(dir, 'cache'), NDS_CUDA: 'off', npm_config_update_notifier: 'false' };
}

const sizeOf = (model: string) => statSync(join(installed, 'examples', 'models', model, 'model.safetensors')).size;

const script = `
import { LLM, type LLMOptions } from 'nano-dist-spec';
const options: LLMOptions = { dtype: 'float32', kvCacheMemoryBytes: 2 ** 24 };
const llm = await LLM.load('story', options);
const [output] = await llm.generate([${JSON.stringify(expected.prompt)}], { temperature: 0, maxTokens: 24 });
const chat = await llm.chat([{ role: 'user', content: 'One day' }], { maxTokens: 1 }, { chatTemplate: '{{ messages[0].content }},' });
console.log(JSON.stringify({ numRanks: llm.shards.length, tokenIds: output?.tokenIds, prompt: chat.prompt }));
await llm.close();
`;

/** A build takes a minute. */
const whenFull = isFull ? {} : { skip: 'builds in a full run' };
const tokenIds = expected.token_ids.slice(0, 24);
const env = bareEnvironment();
const { npm_config_user_agent: _, ...npmEnv } = process.env;

t.before(async () => {
  await succeed('npm', ['pack', '--silent', '--pack-destination', dir], { cwd: checkout, env: { ...npmEnv, NDS_ZIG: 'off' } });
  const tarball = readdirSync(dir).find((name) => name.endsWith('.tgz')) ?? '';
  await makeProject(project, join(dir, tarball));
});

/** A project that has installed the package from `tarball`. */
async function makeProject(folder: string, tarball: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'their-project', private: true, type: 'module' }));
  const args = ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', tarball];
  await succeed('npm', args, { cwd: folder, env: npmEnv });
  cpSync(join(checkout, 'examples', 'models', 'story-180k'), join(folder, 'story'), { recursive: true });
  writeFileSync(join(folder, 'their-script.ts'), script);
  writeFileSync(join(folder, 'plain.mjs'), script.replace(', type LLMOptions', '').replace(': LLMOptions', ''));
}

/** Packs the installed package once more, with this checkout's core in the place of the prebuilt one. */
async function packWithCore(): Promise<string> {
  const unpacked = join(dir, 'with-core');
  cpSync(installed, unpacked, { recursive: true });
  mkdirSync(prebuiltFolder(unpacked), { recursive: true });
  copyFileSync(join(addonFolder(checkout), 'nds.node'), join(prebuiltFolder(unpacked), 'nds.node'));
  const packed = join(dir, 'packed-with-core');
  mkdirSync(packed);
  await succeed('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', packed], { cwd: unpacked, env: npmEnv });
  return join(packed, readdirSync(packed)[0] ?? '');
}

t.test('holds what it needs and little else', async (t) => {
  const files = readdirSync(installed).sort();
  t.same(files, ['CHANGELOG.md', 'LICENSE', 'README.md', 'bin', 'dist', 'examples', 'native', 'package.json']);
  const all = readdirSync(installed, { recursive: true, encoding: 'utf8' });
  const sources = all.filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));
  t.notOk(sources.some((file) => !/^examples\/[^/]+$/.test(file)));
  t.notOk(all.some((file) => /^(?:dist\/test|native\/build\/)|\.node$|\/expected\.json$/.test(file)));
  // Weights in bf16 compress little: story-5m is 10.5 MB here, and 8.3 MB of the tarball.
  const weights = readdirSync(join(installed, 'examples', 'models')).map((name) => [name, sizeOf(name)]);
  t.same(Object.fromEntries(weights), { 'story-180k': 350_024, 'story-5m': 10_500_480 });
});

t.test('types a script of theirs', async () => {
  const tsc = join(checkout, 'node_modules', 'typescript', 'bin', 'tsc');
  const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--types', 'node'];
  const roots = ['--typeRoots', join(checkout, 'node_modules', '@types')];
  await succeed(process.execPath, [tsc, ...flags, ...roots, 'their-script.ts'], { cwd: project });
});

t.test('checks a model before it builds a core', async (t) => {
  const empty = { ...env, NDS_CACHE_DIR: join(dir, 'empty') };
  const commands = [
    ['npx', 'ndsrun', 'generate', 'stroy', 'One day'],
    ['npx', 'ndsrun', 'bench', 'stroy'],
    ['npx', 'ndsrun', 'bench', 'spec', '--target', 'story', '--draft', 'stroy'],
    [process.execPath, 'misspelt.mjs'],
  ];
  writeFileSync(join(project, 'misspelt.mjs'), script.replaceAll("'story'", "'stroy'").replace(/, type LLMOptions|: LLMOptions/g, ''));
  for (const [program = '', ...args] of commands) {
    const { code, stderr } = await run(program, args, { cwd: project, env: empty });
    t.not(code, 0);
    t.match(stderr, 'ERR_MODEL_NOT_FOUND', args.join(' '));
    t.notMatch(stderr, 'Building');
  }
  t.notOk(existsSync(empty.NDS_CACHE_DIR));
});

t.test('types the first script of the README in a new project, as TypeScript comes and as tsc --init sets it up', async (t) => {
  const tsc = (args: readonly string[], cwd: string) =>
    run(process.execPath, [join(checkout, 'node_modules', 'typescript', 'bin', 'tsc'), ...args], { cwd });
  const [first] = scriptsOf(readFileSync(join(checkout, 'README.md'), 'utf8'));
  const text = first?.text ?? '';
  const scripts = { 'story.mts': text, 'using.mts': text.replace('const llm', 'await using llm').replace('await llm.close();\n', '') };
  // Inside the project, so that its packages are found; npm init -y writes "type": "commonjs" since npm 11.
  const folder = join(project, 'types');
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'types', type: 'commonjs' }));
  for (const [name, script] of Object.entries(scripts)) writeFileSync(join(folder, name), script);
  // TypeScript 5 alone needs to be told that the script is a module of this decade. Declarations are checked too.
  for (const flags of [
    ['--module', 'nodenext', '--strict', '--exactOptionalPropertyTypes', '--lib', 'es2022'],
    ['--module', 'esnext', '--moduleResolution', 'node10', '--target', 'es2022'],
  ]) {
    const { code, stdout } = await tsc(['--noEmit', ...flags, ...Object.keys(scripts)], folder);
    t.equal(code, 0, `${flags.join(' ')}\n${stdout}`);
  }
  t.equal((await tsc(['--init'], folder)).code, 0);
  const { code, stdout } = await tsc(['--noEmit'], folder);
  t.equal(code, 0, `tsc --init\n${stdout}`);
});

t.test('builds once for two processes that start together, beside the package and not in it', whenFull, async (t) => {
  const before = readdirSync(installed, { recursive: true }).length;
  const both = await Promise.all([1, 2].map(() => run(process.execPath, ['plain.mjs'], { cwd: project, env })));
  for (const { code, stdout, stderr } of both) {
    t.equal(code, 0, stderr);
    t.same(JSON.parse(stdout), { numRanks: 1, tokenIds, prompt: 'One day,' });
  }
  t.match(both.map(({ stderr }) => stderr).join(''), /^Building the native core with g\+\+\n(?:\[\d+\/\d+\] \d+ s\n)*$/);
  t.equal(readdirSync(installed, { recursive: true }).length, before);
  const [folder = '', ...others] = readdirSync(join(dir, 'cache')).sort();
  t.same(others, ['build-seconds.json']);
  t.same(readdirSync(join(dir, 'cache', folder)).sort(), ['cuda-build.json', 'nds.node', 'stamp']);
});

t.test('without a compiler', async (t) => {
  const { PATH: tools = '', ...rest } = env;
  const bin = join(dir, 'no-compiler');
  cpSync(tools, bin, { recursive: true, verbatimSymlinks: true });
  rmSync(join(bin, 'g++'));
  const bare = { ...rest, PATH: bin, NDS_CACHE_DIR: join(dir, 'unused cache') };

  t.test('and without a prebuilt core says in one line what to install, and why', async (t) => {
    const { code, stderr } = await run(process.execPath, ['plain.mjs'], { cwd: project, env: bare });
    t.equal(code, 1);
    t.match(stderr, /Expected a C\+\+20 compiler.*apt-get install g\+\+.*the package has no prebuilt core for \w+-\w+/);
    t.notMatch(stderr, /Building/);
    const launched = await run('npx', ['ndsrun', 'build'], { cwd: project, env: bare });
    t.match(launched, { code: 70, stderr: /^ndsrun: Expected a C\+\+20 compiler[^\n]*\n$/ });
  });

  t.test('the prebuilt core runs, from a read-only package in a folder with spaces', async (t) => {
    const theirs = join(dir, 'their second project');
    await makeProject(theirs, await packWithCore());
    const theirPackage = join(theirs, 'node_modules', 'nano-dist-spec');
    const core = prebuiltFolder(theirPackage);
    const before = readdirSync(theirPackage, { recursive: true }).length;
    await succeed('chmod', ['-R', 'a-w', join(theirs, 'node_modules')], {});
    t.teardown(() => succeed('chmod', ['-R', 'u+w', join(theirs, 'node_modules')], {}));
    const plain = await run(process.execPath, ['plain.mjs'], { cwd: theirs, env: bare });
    t.match(plain, { code: 0, stderr: '' });
    t.same(JSON.parse(plain.stdout), { numRanks: 1, tokenIds, prompt: 'One day,' });
    const launched = await run('npx', ['ndsrun', '--nproc-per-node=2', 'their-script.ts'], { cwd: theirs, env: bare });
    t.match(launched, { code: 0, stderr: '' });
    t.same(JSON.parse(launched.stdout.replace('[rank 0] ', '')), { numRanks: 2, tokenIds, prompt: 'One day,' });
    const built = await run('npx', ['ndsrun', 'build'], { cwd: theirs, env: bare });
    t.match(built, { code: 0, stdout: `prebuilt core  ${core}/nds.node (`, stderr: '' });
    const cuda = await run('npx', ['ndsrun', 'build', '--cuda'], { cwd: theirs, env: { ...bare, NDS_CUDA: '' } });
    if (findNvcc() === null) t.match(cuda, { code: 70, stderr: /Expected nvcc/ });
    t.notOk(existsSync(bare.NDS_CACHE_DIR), 'nothing is built');
    t.equal(readdirSync(theirPackage, { recursive: true }).length, before);
  });
});

t.test('runs a script on two ranks', whenFull, async (t) => {
  t.match(await succeed('npx', ['ndsrun', '--version'], { cwd: project, env }), /^\d+\.\d+\.\d+\n$/);
  const args = ['ndsrun', '--nproc-per-node=2', 'their-script.ts'];
  const { code, stdout, stderr } = await run('npx', args, { cwd: project, env });
  t.equal(code, 0, stderr);
  t.same(JSON.parse(stdout.replace('[rank 0] ', '')), { numRanks: 2, tokenIds, prompt: 'One day,' });
});

/** The environment in which the core of these sources was built before, by this checkout. */
function builtEnvironment(): Record<string, string> {
  const built = { ...env, NDS_CACHE_DIR: join(dir, 'built') };
  cpSync(addonFolder(checkout), addonFolder(installed, built), { recursive: true });
  return built;
}

const importing = `import { LLM } from 'nano-dist-spec'; console.log(typeof LLM.load, import.meta.resolve('nano-dist-spec'));`;
const requiring = `console.log(typeof require('nano-dist-spec').LLM.load, require('node:url').pathToFileURL(require.resolve('nano-dist-spec')).href);`;

t.test('one copy in a process: of the ndsrun that runs the script', async (t) => {
  const built = builtEnvironment();
  const own = new RegExp(`^function ${pathToFileURL(join(installed, 'dist', 'rank', 'index.js'))}\n$`);
  const scripts = { 'i.ts': importing, 'i.mts': importing, 'i.js': importing, 'i.mjs': importing, 'r.cjs': requiring, 'r.cts': requiring };
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(project, name), text);
    t.match(await succeed('npx', ['ndsrun', name], { cwd: project, env: built }), own, name);
  }
  for (const name of ['i.mts', 'r.cjs']) {
    const stdout = await succeed(process.execPath, [executable, name], { cwd: project, env: built });
    t.match(stdout, new RegExp(`^function ${pathToFileURL(checkout)}/build/js/\\w+/rank/index\\.js`), `${name}, of the checkout`);
  }
});

t.test('installed for all projects, for a script far from any', async (t) => {
  const prefix = join(dir, 'with spaces', 'global');
  const elsewhere = join(dir, 'elsewhere');
  const bundled = join(prefix, 'lib', 'node_modules', 'nano-dist-spec');
  const built = builtEnvironment();
  mkdirSync(elsewhere);
  // As `npm install --global` lays them out: dependencies inside, and the executable as a link.
  cpSync(join(project, 'node_modules'), join(prefix, 'lib', 'node_modules'), { recursive: true });
  mkdirSync(join(prefix, 'bin'));
  symlinkSync(join(bundled, 'bin', 'ndsrun.js'), join(prefix, 'bin', 'ndsrun'));
  for (const name of ['i.ts', 'i.mjs', 'r.cjs']) {
    cpSync(join(project, name), join(elsewhere, name));
    const stdout = await succeed(join(prefix, 'bin', 'ndsrun'), [name], { cwd: elsewhere, env: built });
    t.equal(stdout, `function ${pathToFileURL(join(bundled, 'dist', 'rank', 'index.js'))}\n`, name);
  }
  const told = await succeed(join(prefix, 'bin', 'ndsrun'), [join(bundled, 'examples', 'basic.ts')], { cwd: elsewhere, env: built });
  t.match(told, /^Once upon a time.{40}/s, 'the model travels with the example');
});
