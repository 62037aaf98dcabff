/** Where the parts of this package lie, and how a rank's Node finds them: from sources in a checkout, from dist/ when installed. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { extname } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { RankRuntime } from '../launcher/plan.ts';
import { NdsError } from '../protocol/errors.ts';
import { native } from '../rank/native.ts';

/** Whether this is a checkout, where everything runs from its TypeScript. */
export const isCheckout = import.meta.url.endsWith('.ts');

/** A module of this package by its path without extension, e.g. `rank/preload`. */
export function packageModule(path: string): URL {
  return new URL(`../${path}${isCheckout ? '.ts' : '.js'}`, import.meta.url);
}

/** The version in this package's package.json. */
export function packageVersion(): string {
  for (let folder = new URL('.', import.meta.url); ; folder = new URL('..', folder)) {
    const file = new URL('package.json', folder);
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
    if (folder.pathname === '/') throw new NdsError('ERR_INTERNAL', `Expected a package.json above ${import.meta.url}`);
  }
}

/**
 * Node's options for a rank that runs `script`. The TypeScript loader costs time, so plain JavaScript goes without where it can.
 *
 * Builds the native core where it is missing: once, with its output to be seen, and before a rank depends on it to end with us.
 *
 * @throws NdsError `ERR_NATIVE` when it cannot be built or loaded.
 */
export function runtimeFor(script: string): RankRuntime {
  native();
  const needsLoader = isCheckout || /^\.[mc]?ts$/.test(extname(script));
  const loader = needsLoader ? ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href] : [];
  const condition = isCheckout ? ['-C', 'nds-source'] : [];
  return { nodeArgs: [...condition, ...loader, '--import', packageModule('rank/preload').href] };
}
