/** Builds the native core into `<out>/nds.node`, when something changed: `node native/build.mjs [--out DIR] [--discard-objects]`. */
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildCuda } from './build-cuda.mjs';
import { compileUnits } from './tools/compile.mjs';
import { findCmake, findCompiler, hasStaticRuntime } from './tools/compilers.mjs';
import { withLock } from './tools/lock.mjs';
import { linkArgs, planUnits } from './tools/plan.mjs';
import { run } from './tools/run.mjs';
import { findPackageRoot, hashSources, listSources, nodeApiFolders } from './tools/sources.mjs';

const packageRoot = findPackageRoot();
const nativeDir = join(packageRoot, 'native');

/**
 * @param {{ cmake: string, generator: string }} tool
 * @param {string[]} compiler
 * @param {string} objectDir
 */
async function buildWithCmake({ cmake, generator }, compiler, objectDir) {
  const { addonApi, headers } = nodeApiFolders(packageRoot);
  const settings = {
    NODE_ADDON_API_DIR: addonApi,
    NODE_API_HEADERS_DIR: headers,
    NDS_STATIC_RUNTIME: hasStaticRuntime(compiler) ? 'ON' : 'OFF',
    NDS_CUDA: 'off',
  };
  const env = { ...process.env, CXX: compiler.join(' ') };
  const defines = Object.entries(settings).map(([name, value]) => `-D${name}=${value}`);
  await run(cmake, ['-S', nativeDir, '-B', objectDir, '-G', generator, ...defines], env);
  const output = await run(cmake, ['--build', objectDir, '--parallel', String(availableParallelism())], env);
  return { output, addon: join(objectDir, 'nds.node') };
}

/**
 * @param {string[]} compiler
 * @param {string} objectDir
 */
async function buildWithCompiler(compiler, objectDir) {
  const [program = '', ...compilerArgs] = compiler;
  const { addonApi, headers: apiHeaders } = nodeApiFolders(packageRoot);
  const flagsText = readFileSync(join(nativeDir, 'flags.txt'), 'utf8');
  const { sources } = listSources(nativeDir);
  const planned = planUnits({ sources, flagsText, arch: process.arch, nativeDir, systemIncludes: [addonApi, apiHeaders] });
  const units = planned.map((unit) => ({ ...unit, sources: unit.sources.map((source) => `native/${source}`), program: compiler }));
  const { objects, output } = await compileUnits(units, { root: packageRoot, out: objectDir });
  const addon = join(objectDir, 'nds.node');
  const args = linkArgs({ objects, output: addon, platform: process.platform, staticRuntime: hasStaticRuntime(compiler) });
  return { output: output + (await run(program, [...compilerArgs, ...args])), addon };
}

/**
 * @param {string} out
 * @param {string} stamp
 */
async function build(out, stamp) {
  const compiler = findCompiler();
  const cmake = findCmake();
  const tool = cmake === null ? 'compiler' : cmake.generator.toLowerCase().replaceAll(' ', '-');
  const toolHash = createHash('sha256')
    .update(`${tool} ${compiler.join(' ')}`)
    .digest('hex')
    .slice(0, 8);
  const objectDir = join(out, `objects-${tool}-${toolHash}`);
  mkdirSync(objectDir, { recursive: true });
  console.error(`Building the native core with ${compiler.join(' ')}${cmake === null ? '' : ' and CMake'}; this takes a minute.`);
  const { output, addon } = await (cmake === null ? buildWithCompiler(compiler, objectDir) : buildWithCmake(cmake, compiler, objectDir));
  if (output.includes('warning:')) console.error(output.trimEnd());
  copyFileSync(addon, join(out, 'nds.node.new'));
  renameSync(join(out, 'nds.node.new'), join(out, 'nds.node'));
  writeFileSync(join(out, 'stamp'), stamp);
  return objectDir;
}

async function main() {
  const { values } = parseArgs({ options: { out: { type: 'string' }, 'discard-objects': { type: 'boolean', default: false } } });
  const out = values.out ?? join(packageRoot, 'build', 'native');
  const stamp = hashSources(packageRoot, [process.env['CXX'] ?? '']);
  const isFresh = () =>
    existsSync(join(out, 'nds.node')) && existsSync(join(out, 'stamp')) && readFileSync(join(out, 'stamp'), 'utf8') === stamp;
  mkdirSync(out, { recursive: true });
  const discardObjects = values['discard-objects'];
  if (!isFresh()) {
    await withLock(join(out, 'lock'), async () => {
      if (isFresh()) return;
      const objectDir = await build(out, stamp);
      if (discardObjects) rmSync(objectDir, { recursive: true, force: true });
    });
  }
  await buildCudaToo(out, discardObjects);
}

/**
 * The CUDA backend. Where no one asked for it but nvcc is there, a toolkit that fails must not take the CPU's half with it.
 * @param {string} out
 * @param {boolean} discardObjects
 */
async function buildCudaToo(out, discardObjects) {
  try {
    await buildCuda(out, { discardObjects });
  } catch (error) {
    if (process.env['NDS_CUDA']) throw error;
    console.error(
      `${/** @type {Error} */ (error).message}\nThe CUDA backend is left out: set NDS_CUDA=off to do without, NDS_CUDA=nvcc to insist.`,
    );
  }
}

try {
  await main();
} catch (error) {
  const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
  console.error(`${message} [${code ?? 'ERR_INTERNAL'}]`);
  process.exitCode = 70;
}
