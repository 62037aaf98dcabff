/** Paths of this package's compiled parts and of its package.json. */
import { existsSync, readFileSync } from 'node:fs';
import { NdsError } from '../protocol/errors.ts';

/** A module of this package by its path without extension, e.g. `rank/boot/preload`. */
export function packageModule(path: string): URL {
  return new URL(`../${path}.js`, import.meta.url);
}

/** The folder of this package's package.json. */
export function packageFolder(): URL {
  for (let folder = new URL('.', import.meta.url); ; folder = new URL('..', folder)) {
    if (existsSync(new URL('package.json', folder))) return folder;
    if (folder.pathname === '/') throw new NdsError('ERR_INTERNAL', `Expected a package.json above ${import.meta.url}`);
  }
}

/** The version in this package's package.json. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('package.json', packageFolder()), 'utf8')) as { version: string }).version;
}
