/** Which glibc an ELF file needs, by the names of the symbol versions in it. */

/**
 * The newest `GLIBC_x.y` that a file names, or `null`. The version names are in its dynamic string table, each ended by a zero byte.
 * @param {Buffer} file
 * @returns {string | null} such as `2.28`
 */
export function newestGlibc(file) {
  const versions = [...file.toString('latin1').matchAll(/GLIBC_(\d+\.\d+(?:\.\d+)?)\0/g)].map(([, version = '']) => version);
  return versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? null;
}
