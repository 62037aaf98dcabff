/** Ranks where /dev/shm is small: shared memory lies elsewhere, or the job is refused before it loads. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { sharedMemoryBytes } from '../../launcher/shared-memory.ts';
import { ndsrun } from '../helpers/launcher.ts';
import { cannotMount, mounted } from '../helpers/mounts.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const generate = ['generate', model, 'The cat', '--nproc-per-node=2', '--max-tokens=8', '--temperature=0', '--quiet'];

t.test('a small /dev/shm', { skip: cannotMount }, async (t) => {
  const tmp = join('/tmp', `t-shm-${process.pid}`);
  mkdirSync(tmp);
  t.teardown(() => rmSync(tmp, { recursive: true }));
  const { stdout: expected } = await ndsrun(generate);

  // Pages of just the size that the launcher reserves, one of them for the ranks' states: the ranks need no more.
  const pages = Math.ceil(sharedMemoryBytes(2) / 4096) + 1;
  const exact = await ndsrun(generate, { prefix: mounted('/dev/shm', 4 * pages) });
  t.match(exact, { code: 0, stdout: expected });
  t.notMatch(exact.stderr, 'shared memory');

  for (const kibibytes of [64, 4 * (pages - 1), 0]) {
    const { code, stdout, stderr } = await ndsrun(generate, { prefix: mounted('/dev/shm', kibibytes) });
    t.match({ code, stdout }, { code: 0, stdout: expected }, `${kibibytes} KiB`);
    t.match(stderr, /^\[ndsrun\] shared memory is in \/tmp\/\S+, not in \/dev\/shm: (ENOSPC|EROFS).* docker run --shm-size=64m/m);
  }

  const both = await ndsrun(generate, { prefix: [...mounted('/dev/shm', 64), ...mounted(tmp, 512)], env: { TMPDIR: tmp } });
  t.equal(both.code, 70);
  t.equal(both.stdout, '');
  t.match(
    both.stderr,
    /^ndsrun: Expected 1\.0 MiB for the shared memory of 2 ranks but received ENOSPC.*, 0\.1 MiB free in \/dev\/shm and ENOSPC.* free in \/tmp\/.*; give a container more by docker run --shm-size=64m.* \[ERR_SYSTEM\]$/m,
  );
});
