/** The user's cache: cores of installed packages, cores that checkouts built, and how long the last build took. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** Cores of checkouts that are kept, newest first: each edit of a source makes one of some MB. */
const numKept = 8;

/** @param {NodeJS.ProcessEnv} env */
export function cacheFolder(env = process.env) {
  if (env['NDS_CACHE_DIR']) return env['NDS_CACHE_DIR'];
  return join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'nano-dist-spec');
}

/**
 * The core that a checkout with these sources built.
 * @param {string} hash of the sources
 * @param {NodeJS.ProcessEnv} env
 */
export function checkoutCore(hash, env = process.env) {
  return join(cacheFolder(env), 'checkouts', `${hash}.node`);
}

/**
 * Puts a copy of a file in place at once, so that no one reads a part.
 * @param {string} from
 * @param {string} to
 */
export function copyInPlace(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  const temporary = `${to}.${process.pid}`;
  copyFileSync(from, temporary);
  renameSync(temporary, to);
}

/**
 * Copies the cached core to `to`; whether there is one.
 * @param {string} core
 * @param {string} to
 */
export function takeCore(core, to) {
  if (!existsSync(core)) return false;
  copyInPlace(core, to);
  try {
    utimesSync(core, new Date(), new Date());
  } catch {
    // Another user's or a read-only cache: its owner decides what is kept.
  }
  return true;
}

/**
 * Keeps a copy of a core that a checkout built, and the newest few others.
 * @param {string} from
 * @param {string} core
 */
export function keepCore(from, core) {
  copyInPlace(from, core);
  const folder = dirname(core);
  const cores = readdirSync(folder)
    .filter((name) => name.endsWith('.node') && name !== basename(core))
    .map((name) => ({ path: join(folder, name), time: statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.time - a.time);
  for (const { path } of cores.slice(numKept - 1)) rmSync(path, { force: true });
}

const timesFile = (/** @type {NodeJS.ProcessEnv} */ env) => join(cacheFolder(env), 'build-seconds.json');

/**
 * Seconds that a whole build by `tool` took last, by tool.
 * @param {NodeJS.ProcessEnv} env
 * @returns {Record<string, number>} empty where none is known
 */
export function lastBuildSeconds(env = process.env) {
  try {
    return JSON.parse(readFileSync(timesFile(env), 'utf8'));
  } catch {
    return {};
  }
}

/**
 * @param {string} tool
 * @param {number} seconds
 * @param {NodeJS.ProcessEnv} env
 */
export function keepBuildSeconds(tool, seconds, env = process.env) {
  mkdirSync(cacheFolder(env), { recursive: true });
  const temporary = `${timesFile(env)}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify({ ...lastBuildSeconds(env), [tool]: seconds })}\n`);
  renameSync(temporary, timesFile(env));
}
