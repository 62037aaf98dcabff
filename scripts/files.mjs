/** Lists the files below folders. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the project. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Sorted files under `folders` whose names end in one of `extensions`; paths are relative to the root, with slashes.
 * @param {string[]} folders
 * @param {string[]} extensions
 * @returns {string[]}
 */
export function listFiles(folders, extensions) {
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`))
    .filter((file) => extensions.some((extension) => file.endsWith(extension)))
    .sort();
}
