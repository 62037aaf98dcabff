/** Which copy of this package a script's own `import 'nano-dist-spec'` finds. */
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageModule, packageVersion } from './package-files.ts';

/** Folder of the package's copy that Node finds from `script`; null where none is installed. */
function installedCopy(script: string): string | null {
  for (let folder = dirname(script); ; folder = dirname(folder)) {
    const copy = join(folder, 'node_modules', 'nano-dist-spec');
    if (existsSync(join(copy, 'package.json'))) return realpathSync(copy);
    if (folder === dirname(folder)) return null;
  }
}

/**
 * Whether the script finds this copy by itself, or imports none by name as it is part of it. Any other script is given
 * this one: ranks and launcher speak a protocol of one version.
 */
export function findsThisCopy(script: string): boolean {
  const path = realpathOf(script);
  const entry = fileURLToPath(packageModule('rank/index'));
  if (path.startsWith(dirname(dirname(entry)) + sep)) return true;
  const copy = installedCopy(path);
  return copy !== null && join(copy, 'dist', 'rank', 'index.js') === realpathOf(entry);
}

/** One line where the script's project has another version, which it is not given; null otherwise. */
export function passedOverCopy(script: string): string | null {
  const copy = installedCopy(realpathOf(script));
  if (copy === null) return null;
  const { version } = JSON.parse(readFileSync(join(copy, 'package.json'), 'utf8')) as { version?: unknown };
  if (version === packageVersion()) return null;
  return `the script gets nano-dist-spec ${packageVersion()} of this ndsrun, not ${version} of ${copy} (npx ndsrun runs that)`;
}

function realpathOf(path: string): string {
  return existsSync(path) ? realpathSync(path) : resolve(path);
}
