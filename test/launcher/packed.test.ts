/** The packed package in an empty project, far from this checkout: types, the build on first use without CMake, two ranks. */
import type { SpawnOptions } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { findCompiler, which } from '../../native/tools/compilers.mjs';
import { findPackageRoot } from '../../native/tools/sources.mjs';
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
  writeFileSync(join(bin, 'g++'), `#!/bin/sh\nexec ${[which(compiler), ...args].join(' ')} "$@"\n`);
  chmodSync(join(bin, 'g++'), 0o755);
  return { PATH: bin, HOME: dir, NDS_CACHE_DIR: join(dir, 'cache'), NDS_CUDA: 'off' };
}

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

t.before(async () => {
  const { npm_config_user_agent: _, ...npmEnv } = process.env;
  await succeed('npm', ['pack', '--silent', '--pack-destination', dir], { cwd: checkout, env: npmEnv });
  const tarball = readdirSync(dir).find((name) => name.endsWith('.tgz')) ?? '';
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'their-project', private: true, type: 'module' }));
  const args = ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', join(dir, tarball)];
  await succeed('npm', args, { cwd: project, env: npmEnv });
  cpSync(join(checkout, 'examples', 'models', 'story-180k'), join(project, 'story'), { recursive: true });
  writeFileSync(join(project, 'their-script.ts'), script);
  writeFileSync(join(project, 'plain.mjs'), script.replace(', type LLMOptions', '').replace(': LLMOptions', ''));
});

t.test('holds what it needs and little else', async (t) => {
  const files = readdirSync(installed).sort();
  t.same(files, ['CHANGELOG.md', 'LICENSE', 'README.md', 'bin', 'dist', 'examples', 'native', 'package.json']);
  const all = readdirSync(installed, { recursive: true, encoding: 'utf8' });
  const sources = all.filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));
  t.notOk(sources.some((file) => !/^examples\/[^/]+$/.test(file)));
  t.notOk(all.some((file) => /^(?:dist\/test|examples\/models|native\/build\/)|\.node$/.test(file)));
});

t.test('types a script of theirs', async () => {
  const tsc = join(checkout, 'node_modules', 'typescript', 'bin', 'tsc');
  const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--types', 'node'];
  const roots = ['--typeRoots', join(checkout, 'node_modules', '@types')];
  await succeed(process.execPath, [tsc, ...flags, ...roots, 'their-script.ts'], { cwd: project });
});

t.test('builds once for two processes that start together, beside the package and not in it', whenFull, async (t) => {
  const before = readdirSync(installed, { recursive: true }).length;
  const both = await Promise.all([1, 2].map(() => run(process.execPath, ['plain.mjs'], { cwd: project, env })));
  for (const { code, stdout, stderr } of both) {
    t.equal(code, 0, stderr);
    t.same(JSON.parse(stdout), { numRanks: 1, tokenIds, prompt: 'One day,' });
  }
  t.match(both.map(({ stderr }) => stderr).join(''), /^Building the native core with g\+\+; [^\n]*\n$/);
  t.equal(readdirSync(installed, { recursive: true }).length, before);
  const [folder = '', ...others] = readdirSync(join(dir, 'cache'));
  t.same(others, []);
  t.same(readdirSync(join(dir, 'cache', folder)).sort(), ['cuda-build.json', 'nds.node', 'stamp']);
});

t.test('runs a script on two ranks', whenFull, async (t) => {
  t.match(await succeed('npx', ['ndsrun', '--version'], { cwd: project, env }), /^\d+\.\d+\.\d+\n$/);
  const args = ['ndsrun', '--nproc-per-node=2', 'their-script.ts'];
  const { code, stdout, stderr } = await run('npx', args, { cwd: project, env });
  t.equal(code, 0, stderr);
  t.same(JSON.parse(stdout.replace('[rank 0] ', '')), { numRanks: 2, tokenIds, prompt: 'One day,' });
});
