/** The record that a build leaves beside nds_cuda.so, for the next build and for `ndsrun doctor`. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * `compiler` is a command line. `archs` are compute capabilities, empty for the emulated device. `stamp` is a hash of
 * all inputs. `failure` is the reason why there is no library, null if there is one or none was wanted.
 * @typedef {{ mode: import('./cuda.mjs').CudaMode, compiler: string, archs: readonly string[], stamp: string, failure: string | null }} CudaBuild
 */

const name = 'cuda-build.json';

/**
 * @param {string} folder
 * @param {CudaBuild} build
 */
export function writeCudaBuild(folder, build) {
  // Renamed into place: with nothing to build there is no lock, so two builds may write at once.
  const temporary = join(folder, `${name}.${process.pid}`);
  writeFileSync(temporary, `${JSON.stringify(build)}\n`);
  renameSync(temporary, join(folder, name));
}

/**
 * The record, or `null` if no build was tried.
 * @param {string} folder
 * @returns {CudaBuild | null}
 */
export function readCudaBuild(folder) {
  try {
    return JSON.parse(readFileSync(join(folder, name), 'utf8'));
  } catch {
    return null;
  }
}
