/** The package's root, the files of the native core, and a hash over them. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const sourceFolders = ['addon', 'comm', 'core', 'cpu', 'step'];
const buildFiles = ['CMakeLists.txt', 'flags.txt', 'build.mjs', 'tools/plan.mjs', 'addon/exports.map', 'addon/exports.txt'];

/**
 * An error that `toNdsError` turns into an `NdsError`.
 * @param {string} message
 * @param {unknown} [cause]
 */
export function nativeError(message, cause) {
  return Object.assign(new Error(message, { cause }), { code: 'ERR_NATIVE' });
}

/**
 * The nearest folder above this file with a package.json. This file lives in native/tools and, as a copy, in
 * dist/native/tools.
 */
export function findPackageRoot() {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) {
    if (dirname(dir) === dir) throw nativeError(`Expected a package.json above ${fileURLToPath(import.meta.url)} but found none`);
    dir = dirname(dir);
  }
  return dir;
}

/**
 * Whether this is a checkout. Sources are not published, so that their presence tells it from an installed package.
 * @param {string} packageRoot
 */
export function isCheckout(packageRoot) {
  return existsSync(join(packageRoot, 'rank', 'index.ts'));
}

/**
 * This package's version, which ranks compare.
 * @param {string} packageRoot
 * @returns {string}
 */
export function packageVersion(packageRoot) {
  return JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')).version;
}

/**
 * Sources and headers, relative to native/, sorted.
 * @param {string} nativeDir
 */
export function listSources(nativeDir) {
  const files = sourceFolders.flatMap((folder) => listFiles(nativeDir, folder)).sort();
  return { sources: files.filter((file) => file.endsWith('.cc')), headers: files.filter((file) => file.endsWith('.h')) };
}

/**
 * @param {string} nativeDir
 * @param {string} folder
 * @returns {string[]}
 */
function listFiles(nativeDir, folder) {
  const path = join(nativeDir, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { withFileTypes: true }).flatMap((entry) => {
    const file = `${folder}/${entry.name}`;
    return entry.isDirectory() ? listFiles(nativeDir, file) : [file];
  });
}

/**
 * Folders of napi.h and node_api.h, wherever the package manager put them.
 * @param {string} packageRoot
 */
export function nodeApiFolders(packageRoot) {
  const require = createRequire(join(packageRoot, 'package.json'));
  try {
    const addonApi = dirname(require.resolve('node-addon-api/package.json'));
    const headers = join(dirname(require.resolve('node-api-headers/package.json')), 'include');
    return { addonApi, headers };
  } catch (cause) {
    throw nativeError(
      `Expected the packages node-addon-api and node-api-headers beside ${packageRoot} but found none: run npm install`,
      cause,
    );
  }
}

/**
 * Hash of everything that the built addon depends on: sources, flags, build files, headers of Node, `extra`.
 * @param {string} packageRoot
 * @param {string[]} [extra]
 */
export function hashSources(packageRoot, extra = []) {
  const nativeDir = join(packageRoot, 'native');
  const { sources, headers } = listSources(nativeDir);
  const { addonApi, headers: apiHeaders } = nodeApiFolders(packageRoot);
  const files = [...sources, ...headers, ...buildFiles].map((file) => join(nativeDir, file));
  files.push(join(addonApi, 'package.json'), join(dirname(apiHeaders), 'package.json'));
  const hash = createHash('sha256');
  hash.update(JSON.stringify([process.platform, process.arch, ...extra, sources, headers]));
  for (const file of files) hash.update(createHash('sha256').update(readFileSync(file)).digest());
  return hash.digest('hex').slice(0, 24);
}
