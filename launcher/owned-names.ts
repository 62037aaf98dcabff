/** Names of a launcher's temporary files, by which a later one finds those of launchers that were killed. */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { isRunning } from '../protocol/running.ts';

/**
 * Six characters for the processes that this one can see: a hash of host and PID namespace. Containers and hosts that
 * share a folder do not share process ids, and must leave each other's files alone.
 */
function processSpace(): string {
  return createHash('sha256').update(`${hostname()} ${pidNamespace()}`).digest('hex').slice(0, 6);
}

/** Empty where the system has none. */
function pidNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return '';
  }
}

/** What the name of a file of this launcher starts with: `nds-<process space>-<pid>-`; six word characters follow. */
export function ownedPrefix(space = processSpace(), pid = process.pid): string {
  return `nds-${space}-${pid}-`;
}

/** A new name. */
export function ownedName(): string {
  return `${ownedPrefix()}${randomBytes(3).toString('hex')}`;
}

/** Removes what launchers of this process space that no longer run have left in a folder. */
export function removeAbandoned(folder: string): void {
  if (!existsSync(folder)) return;
  const ownSpace = processSpace();
  for (const name of readdirSync(folder)) {
    const [, space, pid] = /^nds-([0-9a-f]{6})-(\d+)-\w{6}$/.exec(name) ?? [];
    if (space !== ownSpace || isRunning(Number(pid))) continue;
    const path = join(folder, name);
    const { uid } = lstatSync(path, { throwIfNoEntry: false }) ?? {};
    if (uid === process.getuid?.()) rmSync(path, { recursive: true, force: true });
  }
}
