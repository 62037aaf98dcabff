/** What this node's ranks run, for other nodes to compare with theirs. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { NodeIdentity } from '../launcher/link/index.ts';
import { native } from '../rank/native.ts';
import { packageVersion } from './package-files.ts';

/** Libraries that write what other nodes read. */
const libraries = ['zeromq', 'msgpackr'];

/** Of ranks that run a script; NDS_ISA takes away what is better. */
export function nodeIdentity(): NodeIdentity {
  const { cpuInfo, version } = native();
  const { isa, isas } = cpuInfo();
  return { ...programIdentity(), isas: isas.slice(isas.indexOf(isa)), libraries: { 'native core': version, ...versionsOf(libraries) } };
}

/** Of ranks that run a program of the user's. */
export function programIdentity(): NodeIdentity {
  return { version: packageVersion(), arch: process.arch, isas: [], libraries: {} };
}

function versionsOf(names: readonly string[]): Record<string, string> {
  const { resolve } = createRequire(import.meta.url);
  return Object.fromEntries(names.map((name) => [name, versionOf(resolve(name))]));
}

/** The version in the nearest package.json above a library's entry: not every library lets its own be imported. */
function versionOf(entry: string): string {
  for (let folder = dirname(entry); folder !== dirname(folder); folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    const { version } = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { version?: string }) : {};
    if (version !== undefined) return version;
  }
  return 'unknown';
}
