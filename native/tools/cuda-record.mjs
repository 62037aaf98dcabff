/** What a build of nds_cuda.so leaves beside it, for the next build and for `ndsrun doctor`. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * `compiler` is a command line; `archs` are compute capabilities, none on the emulated device; `stamp` is a hash of all that went in;
 * `failure` says why there is no library, null where there is one or none was wanted.
 * @typedef {{ mode: import('./cuda.mjs').CudaMode, compiler: string, archs: readonly string[], stamp: string, failure: string | null }} CudaBuild
 */

const name = 'cuda-build.json';

/**
 * @param {string} folder
 * @param {CudaBuild} build
 */
export function writeCudaBuild(folder, build) {
  // Two builds at a time may get here, where there is nothing to build and so no lock.
  const temporary = join(folder, `${name}.${process.pid}`);
  writeFileSync(temporary, `${JSON.stringify(build)}\n`);
  renameSync(temporary, join(folder, name));
}

/**
 * Null where none was tried.
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
