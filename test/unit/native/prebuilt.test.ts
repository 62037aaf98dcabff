/** Prebuilt cores: where a package has them, and when one is used. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { addonFolder } from '../../../native/load.mjs';
import { oldestGlibc, prebuiltFolder, prebuiltProblem } from '../../../native/tools/prebuilt.mjs';
import { newestGlibc } from '../../../scripts/glibc.mjs';

t.test('a prebuilt core is refused with the reason', async (t) => {
  const facts = { name: 'linux-x64', isThere: true, platform: 'linux', glibc: oldestGlibc };
  t.equal(prebuiltProblem(facts), null);
  t.equal(prebuiltProblem({ ...facts, glibc: '2.41' }), null);
  t.equal(prebuiltProblem({ ...facts, glibc: '3.0' }), null);
  t.equal(prebuiltProblem({ ...facts, platform: 'darwin', glibc: null }), null);
  t.match(prebuiltProblem({ ...facts, glibc: '2.9' }), /needs glibc 2\.28 or newer, and this is glibc 2\.9$/);
  t.match(prebuiltProblem({ ...facts, glibc: null }), /another C library, such as musl/);
  t.match(prebuiltProblem({ ...facts, isThere: false, name: 'linux-riscv64' }), /no prebuilt core for linux-riscv64/);
});

t.test('an installed package uses its prebuilt core, unless a CUDA backend was built in the cache', async (t) => {
  const platform = `${process.platform}-${process.arch}`;
  const api = () => ({ 'package.json': '{}', include: {} });
  const root = t.testdir({
    cache: {},
    'package.json': '{"name":"nano-dist-spec","version":"7.8.9"}',
    native: {
      'flags.txt': '',
      'CMakeLists.txt': '',
      'build.mjs': '',
      tools: { 'plan.mjs': '' },
      addon: { 'exports.map': '', 'exports.txt': '' },
    },
    node_modules: { 'node-addon-api': api(), 'node-api-headers': api() },
  });
  const env = { NDS_CACHE_DIR: join(root, 'cache') };
  const built = addonFolder(root, env);
  t.ok(built.startsWith(join(root, 'cache', `7.8.9-${platform}-`)));
  mkdirSync(prebuiltFolder(root), { recursive: true });
  writeFileSync(join(prebuiltFolder(root), 'nds.node'), '');
  t.equal(addonFolder(root, env), join(root, 'prebuilds', platform));
  mkdirSync(built);
  writeFileSync(join(built, 'nds_cuda.so'), '');
  t.equal(addonFolder(root, env), built);
});

t.test('the glibc that a file needs is the newest that it names', async (t) => {
  t.equal(newestGlibc(Buffer.from('\0GLIBC_2.9\0memcpy\0GLIBC_2.14\0GLIBC_2.2.5\0GLIBC_PRIVATE\0')), '2.14');
  t.equal(newestGlibc(Buffer.from('GLIBC_2.34 in a message')), null);
});
