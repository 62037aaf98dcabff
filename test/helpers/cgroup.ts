/** A cgroup for the processes of a test, below that of the test itself. */
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { cgroupsOf } from '../../protocol/cgroups.ts';

/** Values by file, of each version. */
export type Settings = Readonly<Record<1 | 2, Readonly<Record<string, string>>>>;

/** A command that runs the command after it in a new cgroup with these settings; a text says why there is none. */
export function inCgroup(t: Test, controller: string, settings: Settings): readonly string[] | string {
  const [cgroups] = cgroupsOf(controller);
  if (cgroups === undefined) return 'this system has no cgroups';
  const { version, folders } = cgroups;
  const folder = join(folders[0] ?? '', `nds-test-${process.pid}-${controller}`);
  try {
    mkdirSync(folder);
    t.teardown(() => rmdirSync(folder));
    for (const [file, value] of Object.entries(settings[version])) writeFileSync(join(folder, file), value);
  } catch (error) {
    return `no cgroup for ${controller} here: ${(error as Error).message}`;
  }
  return ['sh', '-c', `echo $$ > '${folder}/cgroup.procs' && exec "$@"`, 'sh'];
}
