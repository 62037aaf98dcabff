/** Paths of this package's compiled parts and of its package.json. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../protocol/package-root.ts';

/** A module of this package by its path without extension, e.g. `rank/boot/preload`. */
export function packageModule(path: string): URL {
  return new URL(`../${path}.js`, import.meta.url);
}

/** The version in this package's package.json. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string }).version;
}
