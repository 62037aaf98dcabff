/** Loads the native core: from build/ in a checkout; in an installed package the prebuilt one, else one that is built into the user's cache. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { findCompiler } from './tools/compilers.mjs';
import { findCudaMode } from './tools/cuda.mjs';
import { readCudaBuild } from './tools/cuda-record.mjs';
import { findPrebuilt } from './tools/prebuilt.mjs';
import { findPackageRoot, hashSources, isCheckout, nativeError, packageVersion } from './tools/sources.mjs';
import { cacheFolder } from './tools/user-cache.mjs';

export { withLock } from './tools/lock.mjs';
export { cacheFolder } from './tools/user-cache.mjs';

/**
 * Folder that holds, or will hold, nds.node.
 * @param {string} packageRoot
 * @param {NodeJS.ProcessEnv} env
 */
export function addonFolder(packageRoot, env = process.env) {
  if (isCheckout(packageRoot)) return buildFolder(packageRoot, env);
  const { folder, problem } = findPrebuilt(packageRoot);
  // The hash in the name of the other folder costs every process 15 ms: not where nothing was built.
  if (problem === null && !hasBuilt(packageRoot, env)) return folder;
  const built = buildFolder(packageRoot, env);
  // With a CUDA backend the core lies beside it, since that is where it looks for one.
  return problem === null && !existsSync(join(built, 'nds_cuda.so')) ? folder : built;
}

/**
 * Folder into which this package's core is built; an installed package may be read-only.
 * @param {string} packageRoot
 * @param {NodeJS.ProcessEnv} env
 */
function buildFolder(packageRoot, env) {
  if (isCheckout(packageRoot)) return join(packageRoot, 'build', 'native');
  return join(cacheFolder(env), buildPrefix(packageRoot) + hashSources(packageRoot));
}

/**
 * Whether this version was built here, from any sources.
 * @param {string} packageRoot
 * @param {NodeJS.ProcessEnv} env
 */
function hasBuilt(packageRoot, env) {
  const folder = cacheFolder(env);
  return existsSync(folder) && readdirSync(folder).some((name) => name.startsWith(buildPrefix(packageRoot)));
}

/** @param {string} packageRoot */
function buildPrefix(packageRoot) {
  return `${packageVersion(packageRoot)}-${process.platform}-${process.arch}-`;
}

/**
 * Runs build.mjs, which takes a core that fits where there is one.
 * @param {string} packageRoot
 * @param {string} folder
 * @param {NodeJS.ProcessEnv} buildEnv
 */
function build(packageRoot, folder, buildEnv = process.env) {
  const { NODE_OPTIONS: _, ...env } = buildEnv;
  const args = [join(packageRoot, 'native', 'build.mjs'), '--out', folder, ...(isCheckout(packageRoot) ? [] : ['--discard-objects'])];
  const { status, signal, error } = spawnSync(process.execPath, args, { env, stdio: ['ignore', 2, 2] });
  if (status === 0) return;
  const reason = error?.message ?? `it ended with ${signal ?? status}; its output is above`;
  throw nativeError(`Expected to build the native core into ${folder} but ${reason}`, error);
}

/**
 * Where the addon lies, where it looks for the CUDA backend, and how that was built; it may have been built elsewhere, or not at all.
 * @param {NodeJS.ProcessEnv} env
 */
export function nativeFiles(env = process.env) {
  const folder = addonFolder(findPackageRoot(), env);
  const named = env['NDS_CUDA_LIBRARY'];
  const own = { addon: join(folder, 'nds.node'), cuda: join(folder, 'nds_cuda.so'), cudaBuild: readCudaBuild(folder) };
  return named ? { ...own, cuda: named, cudaBuild: readCudaBuild(dirname(named)) } : own;
}

/**
 * Builds what is missing: the core where no prebuilt one fits, and the CUDA backend with nvcc. Output of the build goes to standard error.
 * @param {{ cuda: boolean }} options `cuda`: fails without nvcc; else the CUDA backend is left out there
 * @param {NodeJS.ProcessEnv} env
 */
export function buildMissing({ cuda }, env = process.env) {
  const packageRoot = findPackageRoot();
  const buildEnv = cuda && !env['NDS_CUDA'] ? { ...env, NDS_CUDA: 'nvcc' } : env;
  const mode = findCudaMode(buildEnv);
  if (cuda && mode === 'off') throw nativeError('Expected NDS_CUDA to be nvcc or emulated for a CUDA backend but received off');
  const isPrebuilt = !isCheckout(packageRoot) && findPrebuilt(packageRoot).problem === null;
  const folder = buildFolder(packageRoot, env);
  if (!isPrebuilt && !existsSync(join(folder, 'nds.node'))) requireCompiler(packageRoot);
  if (!isPrebuilt || mode !== 'off') build(packageRoot, folder, buildEnv);
  return { ...nativeFiles(env), isPrebuilt };
}

/** Builds the addon where it is missing, and loads it; `version` is that of this package. */
export function loadAddon() {
  const packageRoot = findPackageRoot();
  const folder = addonFolder(packageRoot);
  const file = join(folder, 'nds.node');
  if (!existsSync(file)) {
    requireCompiler(packageRoot);
    build(packageRoot, folder);
  }
  try {
    const addon = createRequire(import.meta.url)(file);
    addon.version ??= packageVersion(packageRoot);
    return addon;
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw nativeError(`Expected ${file} to be a native core that this Node can load but received: ${message}`, cause);
  }
}

/**
 * Refuses a build that cannot begin, with the reason why one is needed.
 * @param {string} packageRoot
 */
function requireCompiler(packageRoot) {
  // A checkout may take a core from the cache.
  if (isCheckout(packageRoot)) return;
  try {
    findCompiler();
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw nativeError(`${message}. The native core must be built: ${findPrebuilt(packageRoot).problem}`, cause);
  }
}
