/** The line of a user's script in a recorded stack. */
import { fileURLToPath } from 'node:url';

/** Folders of this package whose frames say nothing about a script, beside this file's own. */
const ownFolders = ['bin', 'launcher', 'protocol', 'rank'].map((folder) => fileURLToPath(new URL(`../${folder}/`, import.meta.url)));

/** `file:line:column` of the first frame outside Node, this package and other packages; null where there is none. */
export function scriptLine(stack: string | null): string | null {
  for (const line of (stack ?? '').split('\n')) {
    const [, place] = /^\s+at (?:.*\()?(?:async )?((?:file:\/\/)?\/.+:\d+:\d+)\)?$/.exec(line) ?? [];
    if (place === undefined) continue;
    const path = place.startsWith('file:') ? fileURLToPath(place) : place;
    if (!path.includes('/node_modules/') && !ownFolders.some((folder) => path.startsWith(folder))) return path;
  }
  return null;
}
