/** Files that end with the process that made them. */
import { openSync, symlinkSync, unlinkSync } from 'node:fs';

/**
 * Opens a new file for reading and writing that other processes open by `path`. On Linux it has no name: `path` is a link
 * to this process's descriptor of it, so that its bytes end with the process, however it ends, once no other has them open
 * or mapped. Elsewhere it is a file at `path`.
 *
 * @returns the descriptor, which a nameless file lives as long as.
 */
export function openNameless(path: string): { readonly file: number; readonly isNameless: boolean } {
  if (process.platform !== 'linux') return { file: openSync(path, 'wx+', 0o600), isNameless: false };
  const created = `${path}.new`;
  const file = openSync(created, 'wx+', 0o600);
  unlinkSync(created);
  symlinkSync(`/proc/${process.pid}/fd/${file}`, path);
  return { file, isNameless: true };
}
