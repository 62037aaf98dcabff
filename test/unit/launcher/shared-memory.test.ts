/** Shared memory is reserved where there is room for it, or refused with what would help. */
import { closeSync, fstatSync, readdirSync, unlinkSync } from 'node:fs';
import t from 'tap';
import { openSharedMemory, sharedMemoryBytes } from '../../../launcher/shared-memory.ts';

t.test('its size is that of all slots and blocks, and all of it is there', async (t) => {
  t.same([0, 1, 2, 126].map(sharedMemoryBytes), [0, 0, 1_057_792, 66_132_992]);
  t.ok(sharedMemoryBytes(126) < 64 * 2 ** 20, 'what Docker gives a container is enough for 126 ranks');
  const folder = t.testdir();
  const { fd, path, notice } = openSharedMemory(3, [folder]);
  const { size, blocks, mode } = fstatSync(fd);
  t.equal(size, sharedMemoryBytes(3));
  t.ok(blocks * 512 >= size, 'reserved');
  t.equal(mode & 0o777, 0o600);
  t.equal(notice, null);
  unlinkSync(path);
  closeSync(fd);
});

t.test('the next folder, and a notice', async (t) => {
  const folder = t.testdir();
  const { fd, path, notice } = openSharedMemory(2, ['/no/such', folder]);
  t.ok(path.startsWith(folder));
  t.match(notice, /^shared memory is in .*, not in \/no\/such: ENOENT.*; give a container more by docker run --shm-size=64m, a pod by/);
  unlinkSync(path);
  closeSync(fd);
});

t.test('no folder', async (t) => {
  const folder = t.testdir();
  t.throws(() => openSharedMemory(200, ['/no/such', '/proc']), {
    code: 'ERR_SYSTEM',
    message:
      /^Expected 100\.1 MiB for the shared memory of 200 ranks but received .*\/no\/such.* and .*\/proc\/.*--shm-size=202m.*, or name a folder with room in TMPDIR$/,
  });
  t.same(readdirSync(folder), []);
});
