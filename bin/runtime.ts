/**
 * Paths of this package's parts, and how a rank's Node finds them: from sources in a checkout, from dist/ when
 * installed.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Script } from 'node:vm';
import type { RankRuntime } from '../launcher/plan.ts';
import { NdsError } from '../protocol/errors.ts';
import { usesDisposal, usesModuleSyntax } from '../rank/boot/module-syntax.ts';
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
 * @throws NdsError `ERR_NATIVE` when the core cannot be built or loaded, `ERR_USAGE` for a script that this Node cannot
 * parse.
 */
export function runtimeFor(script: string): RankRuntime {
  refuseDisposal(script);
  native();
  const needsLoader = isCheckout || /^\.[mc]?ts$/.test(extname(script));
  const loader = needsLoader
    ? [pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href, packageModule('rank/boot/load-hooks').href].flatMap((url) => [
        '--import',
        url,
      ])
    : [];
  const condition = isCheckout ? ['-C', 'nds-source'] : [];
  const moduleHooks = isMisread(script) ? ['--import', packageModule('rank/boot/module-hooks').href] : [];
  return { nodeArgs: [...condition, ...loader, ...moduleHooks, '--import', packageModule('rank/boot/preload').href] };
}

/** JavaScript is run as it is: only TypeScript is compiled for a Node without `using`. */
function refuseDisposal(script: string): void {
  if (!/^\.[mc]?js$/.test(extname(script)) || canParse('{ using x = null; }') || !usesDisposal(readScript(script))) return;
  throw new NdsError(
    'ERR_USAGE',
    `Expected JavaScript that Node ${process.versions.node} can parse but received \`using\` in ${script}: name it .mts, or call \`await llm.close()\``,
  );
}

function canParse(code: string): boolean {
  try {
    return new Script(code) !== null;
  } catch {
    return false;
  }
}

/** The launcher reports a script that is no file. */
function readScript(script: string): string {
  return statSync(script, { throwIfNoEntry: false })?.isFile() ? readFileSync(script, 'utf8') : '';
}

/**
 * Whether a script is an ES module that Node would run as CommonJS, as neither its extension nor its package declares
 * it.
 */
function isMisread(script: string): boolean {
  return /^\.[jt]s$/.test(extname(script)) && packageType(dirname(resolve(script))) !== 'module' && usesModuleSyntax(readScript(script));
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
