/** Loads the native core: from build/ in a checkout, from a per-user cache in an installed package; builds it where it is missing. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { readCudaBuild } from './tools/cuda-record.mjs';
import { findPackageRoot, hashSources, nativeError, packageVersion } from './tools/sources.mjs';

/**
 * Folder that holds, or will hold, nds.node.
 * @param {string} packageRoot
 * @param {NodeJS.ProcessEnv} env
 */
export function addonFolder(packageRoot, env = process.env) {
  // Sources are not published, so their presence tells a checkout from an installed package, which may be read-only.
  if (isCheckout(packageRoot)) return join(packageRoot, 'build', 'native');
  return join(cacheFolder(env), `${packageVersion(packageRoot)}-${process.platform}-${process.arch}-${hashSources(packageRoot)}`);
}

/** @param {string} packageRoot */
function isCheckout(packageRoot) {
  return existsSync(join(packageRoot, 'rank', 'index.ts'));
}

/** @param {NodeJS.ProcessEnv} env */
function cacheFolder(env) {
  if (env['NDS_CACHE_DIR']) return env['NDS_CACHE_DIR'];
  return join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'nano-dist-spec');
}

/**
 * @param {string} packageRoot
 * @param {string} folder
 */
function build(packageRoot, folder) {
  const { NODE_OPTIONS: _, ...env } = process.env;
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

/** Builds the addon where it is missing, and loads it; `version` is that of this package. */
export function loadAddon() {
  const packageRoot = findPackageRoot();
  const folder = addonFolder(packageRoot);
  const file = join(folder, 'nds.node');
  if (!existsSync(file)) build(packageRoot, folder);
  try {
    const addon = createRequire(import.meta.url)(file);
    addon.version ??= packageVersion(packageRoot);
    return addon;
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw nativeError(`Expected ${file} to be a native core that this Node can load but received: ${message}`, cause);
  }
}
