/** Prebuilt cores in an installed package: `prebuilds/<platform>-<arch>/nds.node`. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The glibc that the cores for Linux are linked against; official builds of Node 20 need it too. */
export const oldestGlibc = '2.28';

/**
 * Folder of the prebuilt core, whether it is there or not.
 * @param {string} packageRoot
 * @param {string} platform as `process.platform`
 * @param {string} arch as `process.arch`
 */
export function prebuiltFolder(packageRoot, platform = process.platform, arch = process.arch) {
  return join(packageRoot, 'prebuilds', `${platform}-${arch}`);
}

/**
 * Why a prebuilt core cannot run, or `null` if it can. Pure.
 * @param {{ name: string, isThere: boolean, platform: string, glibc: string | null }} facts `name` = platform and processor; `glibc`: version
 *   of this process, `null` where its C library is another.
 */
export function prebuiltProblem({ name, isThere, platform, glibc }) {
  if (!isThere) return `the package has no prebuilt core for ${name}`;
  if (platform !== 'linux') return null;
  if (glibc === null) return `the prebuilt core needs glibc ${oldestGlibc} or newer, and this Node runs on another C library, such as musl`;
  return isAtLeast(glibc, oldestGlibc) ? null : `the prebuilt core needs glibc ${oldestGlibc} or newer, and this is glibc ${glibc}`;
}

/**
 * @param {string} version
 * @param {string} oldest
 */
function isAtLeast(version, oldest) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = oldest.split('.').map(Number);
  return major > oldestMajor || (major === oldestMajor && minor >= oldestMinor);
}

/**
 * The prebuilt core's folder, and why it cannot be used (`null` if it can).
 * @param {string} packageRoot
 */
export function findPrebuilt(packageRoot) {
  const folder = prebuiltFolder(packageRoot);
  const isThere = existsSync(join(folder, 'nds.node'));
  // Asking for the C library takes milliseconds: not where there is nothing to load.
  const glibc = isThere ? glibcVersion() : null;
  const name = `${process.platform}-${process.arch}`;
  return { folder, problem: prebuiltProblem({ name, isThere, platform: process.platform, glibc }) };
}

/** @type {string | null | undefined} */
let knownGlibc;

/** Version of this process's glibc, `null` for another C library. */
export function glibcVersion() {
  if (knownGlibc === undefined) {
    const { header } = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (process.report.getReport());
    knownGlibc = header.glibcVersionRuntime ?? null;
  }
  return knownGlibc;
}
