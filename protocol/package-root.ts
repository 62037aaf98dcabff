/** Where this package lies: its code runs from the sources, from dist/, and compiled in build/. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NdsError } from './errors.ts';

/** The folder of this package's package.json: the nearest one above this file. */
export function packageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder;
    if (folder === dirname(folder)) throw new NdsError('ERR_INTERNAL', `Expected a package.json above ${import.meta.url}`);
  }
}
