/** How Node runs a rank's script. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Script } from 'node:vm';
import type { RankRuntime } from '../launcher/plan.ts';
import { NdsError } from '../protocol/errors.ts';
import { usesDisposal, usesModuleSyntax } from '../rank/boot/module-syntax.ts';
import { native } from '../rank/native.ts';
import { findsThisCopy } from './package-copy.ts';
import { packageModule } from './package-files.ts';

/**
 * Node's options for a rank that runs `script`. What costs start-up time is left out where the script does without: the
 * TypeScript loader, and hooks on modules, which take a thread in Node 20.
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
  const isTypeScript = /^\.[mc]?ts$/.test(extname(script));
  const imports = [
    ...(isTypeScript ? [pathToFileURL(createRequire(import.meta.url).resolve('tsx')), packageModule('rank/boot/load-hooks')] : []),
    ...(isMisread(script) ? [packageModule('rank/boot/module-hooks')] : []),
    ...(findsThisCopy(script) ? [] : [packageModule('rank/boot/package-hooks')]),
    packageModule('rank/boot/preload'),
  ];
  const sourceMaps = process.sourceMapsEnabled ? ['--enable-source-maps'] : [];
  return { nodeArgs: [...sourceMaps, ...imports.flatMap(({ href }) => ['--import', href])] };
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
