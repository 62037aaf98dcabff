/** Builds the native core into `<out>/nds.node`, when something changed: `node native/build.mjs [--out DIR] [--discard-objects]`. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildCuda } from './build-cuda.mjs';
import { BuildProgress, progressIn } from './tools/build-progress.mjs';
import { compileUnits } from './tools/compile.mjs';
import { findCmake, findCompiler, hasStaticRuntime } from './tools/compilers.mjs';
import { withLock } from './tools/lock.mjs';
import { linkArgs, planUnits } from './tools/plan.mjs';
import { findPrebuilt, glibcVersion } from './tools/prebuilt.mjs';
import { run } from './tools/run.mjs';
import { findPackageRoot, hashSources, isCheckout, listSources, nodeApiFolders } from './tools/sources.mjs';
import { checkoutCore, copyInPlace, keepBuildSeconds, keepCore, lastBuildSeconds, takeCore } from './tools/user-cache.mjs';

const packageRoot = findPackageRoot();
const nativeDir = join(packageRoot, 'native');

/**
 * @param {{ cmake: string, generator: string }} tool
 * @param {string[]} compiler
 * @param {string} objectDir
 * @param {BuildProgress} progress
 */
async function buildWithCmake({ cmake, generator }, compiler, objectDir, progress) {
  const { addonApi, headers } = nodeApiFolders(packageRoot);
  const settings = {
    NODE_ADDON_API_DIR: addonApi,
    NODE_API_HEADERS_DIR: headers,
    NDS_STATIC_RUNTIME: hasStaticRuntime(compiler) ? 'ON' : 'OFF',
    NDS_CUDA: 'off',
  };
  const env = { ...process.env, CXX: compiler.join(' '), NINJA_STATUS: '[%f/%t] ' };
  const defines = Object.entries(settings).map(([name, value]) => `-D${name}=${value}`);
  await run(cmake, ['-S', nativeDir, '-B', objectDir, '-G', generator, ...defines], env);
  const output = await run(cmake, ['--build', objectDir, '--parallel', String(availableParallelism())], env, (text) => {
    const steps = progressIn(text);
    if (steps !== null) progress.show(steps);
  });
  return { output, addon: join(objectDir, 'nds.node') };
}

/**
 * @param {string[]} compiler
 * @param {string} objectDir
 * @param {BuildProgress} progress
 */
async function buildWithCompiler(compiler, objectDir, progress) {
  const [program = '', ...compilerArgs] = compiler;
  const { addonApi, headers: apiHeaders } = nodeApiFolders(packageRoot);
  const flagsText = readFileSync(join(nativeDir, 'flags.txt'), 'utf8');
  const { sources } = listSources(nativeDir);
  const planned = planUnits({ sources, flagsText, arch: process.arch, nativeDir, systemIncludes: [addonApi, apiHeaders] });
  const units = planned.map((unit) => ({ ...unit, sources: unit.sources.map((source) => `native/${source}`), program: compiler }));
  const onProgress = (/** @type {string} */ steps) => progress.show(steps);
  const { objects, output } = await compileUnits(units, { root: packageRoot, out: objectDir, onProgress });
  const addon = join(objectDir, 'nds.node');
  const args = linkArgs({ objects, output: addon, platform: process.platform, staticRuntime: hasStaticRuntime(compiler), nativeDir });
  return { output: output + (await run(program, [...compilerArgs, ...args])), addon };
}

/**
 * Builds into `out`, and returns the folder of objects.
 * @param {string} out
 */
async function build(out) {
  const compiler = findCompiler();
  const cmake = findCmake();
  const tool = cmake === null ? 'compiler' : cmake.generator.toLowerCase().replaceAll(' ', '-');
  const toolHash = createHash('sha256')
    .update(`${tool} ${compiler.join(' ')}`)
    .digest('hex')
    .slice(0, 8);
  const objectDir = join(out, `objects-${tool}-${toolHash}`);
  // What a build takes that begins with objects says nothing of the next one.
  const isWhole = !existsSync(objectDir);
  const toolName = `${compiler.join(' ')}${cmake === null ? '' : ' and CMake'}`;
  const last = isWhole ? lastBuildSeconds()[toolName] : undefined;
  mkdirSync(objectDir, { recursive: true });
  console.error(`Building the native core with ${toolName}${last === undefined ? '' : `; last time it took ${Math.round(last)} s`}`);
  const begin = performance.now();
  const progress = new BuildProgress();
  try {
    const { output, addon } = await (cmake === null
      ? buildWithCompiler(compiler, objectDir, progress)
      : buildWithCmake(cmake, compiler, objectDir, progress));
    progress.end();
    if (output.includes('warning:')) console.error(output.trimEnd());
    copyInPlace(addon, join(out, 'nds.node'));
  } finally {
    progress.end();
  }
  if (isWhole) inCache('The time of the build', () => keepBuildSeconds(toolName, (performance.now() - begin) / 1000));
  return objectDir;
}

/**
 * Does what a build can do without: a cache that cannot be written costs the next build its time.
 * @param {string} what
 * @param {() => void} work
 */
function inCache(what, work) {
  try {
    work();
  } catch (error) {
    console.error(`${what} is not kept in the cache: ${/** @type {Error} */ (error).message}`);
  }
}

/**
 * Makes `<out>/nds.node`: in a package of the prebuilt core that fits, in a checkout of one in the user's cache that was built of the same
 * sources, else by building it.
 * @param {string} out
 * @param {string} key of the core in the cache
 * @param {boolean} discardObjects
 */
async function makeCore(out, key, discardObjects) {
  const addon = join(out, 'nds.node');
  const prebuilt = isCheckout(packageRoot) ? null : findPrebuilt(packageRoot);
  if (prebuilt?.problem === null) return copyInPlace(join(prebuilt.folder, 'nds.node'), addon);
  const core = checkoutCore(key);
  if (prebuilt === null && takeCore(core, addon)) return console.error(`Taking the native core from ${core}`);
  const objectDir = await build(out);
  if (prebuilt === null) inCache('The native core', () => keepCore(addon, core));
  if (discardObjects) rmSync(objectDir, { recursive: true, force: true });
}

async function main() {
  const { values } = parseArgs({ options: { out: { type: 'string' }, 'discard-objects': { type: 'boolean', default: false } } });
  const out = values.out ?? join(packageRoot, 'build', 'native');
  // CMake reads the variables; a home folder may be shared by machines with other C libraries.
  const variables = ['CXX', 'CXXFLAGS', 'LDFLAGS'].map((name) => process.env[name] ?? '');
  const stamp = hashSources(packageRoot, [...variables, glibcVersion() ?? '']);
  const isFresh = () =>
    existsSync(join(out, 'nds.node')) && existsSync(join(out, 'stamp')) && readFileSync(join(out, 'stamp'), 'utf8') === stamp;
  mkdirSync(out, { recursive: true });
  const discardObjects = values['discard-objects'];
  if (!isFresh()) {
    await withLock(join(out, 'lock'), async () => {
      if (isFresh()) return;
      await makeCore(out, stamp, discardObjects);
      writeFileSync(join(out, 'stamp'), stamp);
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
