/**
 * Paths of this package's parts, and how a rank's Node finds them: from sources in a checkout, from dist/ when
 * installed.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { RankRuntime } from '../launcher/plan.ts';
import { NdsError } from '../protocol/errors.ts';
import { usesModuleSyntax } from '../rank/boot/module-syntax.ts';
import { native } from '../rank/native.ts';

/** Whether this is a checkout, which runs its TypeScript directly. */
export const isCheckout = import.meta.url.endsWith('.ts');

/** A module of this package by its path without extension, e.g. `rank/boot/preload`. */
export function packageModule(path: string): URL {
  return new URL(`../${path}${isCheckout ? '.ts' : '.js'}`, import.meta.url);
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

/**
 * Node's options for a rank that runs `script`. The TypeScript loader costs start-up time, so it is left out where the
 * script and this package are JavaScript.
 *
 * Builds the native core where it is missing: once, with visible output, and before ranks start, which rely on it to
 * end with the launcher.
 *
 * @throws NdsError `ERR_NATIVE` when the core cannot be built or loaded.
 */
export function runtimeFor(script: string): RankRuntime {
  native();
  const needsLoader = isCheckout || /^\.[mc]?ts$/.test(extname(script));
  const loader = needsLoader ? ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href] : [];
  const condition = isCheckout ? ['-C', 'nds-source'] : [];
  const moduleHooks = isMisread(script) ? ['--import', packageModule('rank/boot/module-hooks').href] : [];
  return { nodeArgs: [...condition, ...loader, ...moduleHooks, '--import', packageModule('rank/boot/preload').href] };
}

/**
 * Whether a script is an ES module that Node would run as CommonJS, as neither its extension nor its package declares
 * it.
 */
function isMisread(script: string): boolean {
  if (!/^\.[jt]s$/.test(extname(script)) || !statSync(script, { throwIfNoEntry: false })?.isFile()) return false;
  return packageType(dirname(resolve(script))) !== 'module' && usesModuleSyntax(readFileSync(script, 'utf8'));
}

/** `type` of the nearest package.json; Node reports a broken file. */
function packageType(folder: string): unknown {
  const file = join(folder, 'package.json');
  if (!existsSync(file)) return folder === dirname(folder) ? undefined : packageType(dirname(folder));
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { type?: unknown } | null)?.type;
  } catch {
    return undefined;
  }
}
