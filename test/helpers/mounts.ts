/** File systems of a few kilobytes, each in a mount namespace that only the command in it sees. */
import { spawnSync } from 'node:child_process';

/** Why this machine cannot mount for a test; false where it can. */
export const cannotMount = ((): string | false => {
  const { status, stderr, error } = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'none', '/mnt'], { encoding: 'utf8' });
  return status === 0 ? false : `no mount namespaces here: ${error?.message ?? stderr.trim()}`;
})();

/** A command that runs the command after it where `folder` is an empty file system of `kibibytes`; 0 = read-only. */
export function mounted(folder: string, kibibytes: number): string[] {
  const size = kibibytes === 0 ? 'ro' : `size=${kibibytes}k`;
  return ['unshare', '-m', 'sh', '-c', `mount -t tmpfs -o ${size} none '${folder}' && exec "$@"`, 'sh'];
}
