/** What killed launchers have left is removed, and nothing that may still be in use. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ownedName, ownedPrefix, removeAbandoned } from '../../../launcher/owned-names.ts';

/** A process id that was in use, and is not any more. */
const ended = spawnSync('true').pid;

t.test('files and folders of launchers that no longer run', async (t) => {
  const folder = t.testdir();
  const left = `${ownedPrefix(undefined, ended)}abcdef`;
  mkdirSync(join(folder, left, '0'), { recursive: true });
  writeFileSync(join(folder, `${ownedPrefix(undefined, ended)}a1b2c3`), '');
  removeAbandoned(folder);
  t.same(readdirSync(folder), []);
  removeAbandoned(join(folder, 'no-such-folder'));
});

t.test('what is used, or may be, stays', async (t) => {
  const folder = t.testdir();
  const kept = [
    ownedName(),
    mkdtempSync(join(folder, ownedPrefix())).slice(folder.length + 1),
    // A container's launcher, whose process id means nothing here.
    `${ownedPrefix('0a1b2c', ended)}abcdef`,
    `${ownedPrefix(undefined, ended)}abcdefg`,
    `nds-test-${ended}-abcdef`,
  ];
  for (const name of kept.filter((_, index) => index !== 1)) writeFileSync(join(folder, name), '');
  removeAbandoned(folder);
  t.same(readdirSync(folder).sort(), kept.sort());
});

t.test('another PID namespace is another process space', async (t) => {
  const print = `import { ownedPrefix } from '${new URL('../../../launcher/owned-names.ts', import.meta.url)}'; console.log(ownedPrefix(undefined, 1));`;
  const node = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', print];
  const prefixIn = ([command = '', ...args]: string[]) => spawnSync(command, args, { encoding: 'utf8' });
  t.equal(prefixIn(node).stdout.trim(), ownedPrefix(undefined, 1));
  const inside = prefixIn(['unshare', '--user', '--map-root-user', '--pid', '--fork', '--mount-proc', ...node]);
  if (inside.status !== 0) return t.comment(`SKIP the other namespace: ${inside.stderr.trim()}`);
  t.match(inside.stdout, /^nds-[0-9a-f]{6}-1-$/m);
  t.not(inside.stdout.trim(), ownedPrefix(undefined, 1));
});
