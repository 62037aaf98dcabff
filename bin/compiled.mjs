/** The JavaScript of a checkout: each state of its sources is compiled once, into a folder named by their hash. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { resetErrors } from '../rank/boot/lowered-using.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
/** The package's sources, and what the scripts of tests consist of. */
const folders = ['bin', 'launcher', 'protocol', 'rank', 'test/fixtures/scripts', 'test/helpers', 'test/references'];
/** What the output depends on too: esbuild's version, and this file. */
const inputs = ['package-lock.json', 'bin/compiled.mjs', 'rank/boot/lowered-using.mjs'];
/** Age, by its last use, at which a folder is removed: no process that began in it still imports from it. */
const staleMs = 24 * 60 * 60 * 1000;

/**
 * Compiles the sources unless that was done. Processes that do so at once each write a folder of their own, and the
 * first to finish gives it its name; a process that runs keeps the folder that it began in.
 *
 * @param {string} [checkout]
 * @returns {Promise<string>} the folder, with the layout of the checkout
 */
export async function compiledFolder(checkout = root) {
  const sources = readSources(checkout);
  const parent = join(checkout, 'build', 'js');
  const folder = join(parent, hashOf(sources));
  if (existsSync(folder)) {
    markUsed(folder);
    return folder;
  }
  const own = `${folder}.${process.pid}`;
  const outputs = await compile(checkout, sources, own);
  for (const { path, text } of outputs) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, resetErrors(text));
  }
  try {
    renameSync(own, folder);
  } catch (error) {
    rmSync(own, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
  removeStale(parent);
  return folder;
}

/**
 * Text by path, relative to the checkout, with slashes.
 * @param {string} checkout
 * @returns {Map<string, string>}
 */
function readSources(checkout) {
  const files = folders.flatMap((folder) =>
    existsSync(join(checkout, folder))
      ? readdirSync(join(checkout, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`)
      : [],
  );
  const sources = files.filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts')).sort();
  return new Map(sources.map((file) => [file, readFileSync(join(checkout, file), 'utf8')]));
}

/** @param {Map<string, string>} sources */
function hashOf(sources) {
  const hash = createHash('sha256');
  for (const file of inputs) hash.update(readFileSync(join(root, file)));
  for (const [file, text] of sources) hash.update(`${file}\0${text}\0`);
  return hash.digest('hex').slice(0, 16);
}

/**
 * @param {string} checkout
 * @param {Map<string, string>} sources
 * @param {string} out
 */
async function compile(checkout, sources, out) {
  /** @type {import('esbuild')} */
  const esbuild = createRequire(createRequire(import.meta.url).resolve('tsx'))('esbuild');
  const { outputFiles } = await esbuild.build({
    absWorkingDir: checkout,
    entryPoints: [...sources.keys()],
    outbase: checkout,
    outdir: out,
    write: false,
    bundle: true,
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node20.11',
    // Stack traces name the lines of the sources.
    sourcemap: 'linked',
    sourcesContent: false,
    logLevel: 'silent',
    plugins: [{ name: 'each file by itself', setup: (build) => leaveImports(build, checkout, sources, out) }],
  });
  return outputFiles;
}

/**
 * Leaves imports in place, of a compiled file by its new extension, and of any other by its place in the checkout.
 * @param {import('esbuild').PluginBuild} build
 * @param {string} checkout
 * @param {Map<string, string>} sources
 * @param {string} out
 */
function leaveImports(build, checkout, sources, out) {
  build.onResolve({ filter: /^\.\.?\// }, ({ path, importer, kind }) => {
    if (kind === 'entry-point') return undefined;
    if (path.endsWith('.ts')) return { path: path.replace(/\.ts$/, '.js'), external: true };
    const from = join(out, relative(checkout, dirname(importer)));
    return { path: posix.normalize(relative(from, join(dirname(importer), path))), external: true };
  });
  build.onLoad({ filter: /\.ts$/ }, ({ path }) => ({ contents: sources.get(relative(checkout, path)) ?? '', loader: 'ts' }));
}

/** @param {string} folder */
function markUsed(folder) {
  try {
    const now = new Date();
    utimesSync(folder, now, now);
  } catch {
    // A checkout that cannot be written runs all the same.
  }
}

/** @param {string} parent */
function removeStale(parent) {
  for (const name of readdirSync(parent)) {
    const path = join(parent, name);
    const { mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { mtimeMs: Date.now() };
    if (Date.now() - mtimeMs > staleMs) rmSync(path, { recursive: true, force: true });
  }
}
