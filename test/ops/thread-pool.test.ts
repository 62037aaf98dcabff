/** Stages of a thread pool under the thread sanitizer, where the compiler has one. */
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findCompiler } from '../../native/tools/compilers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const [program = '', ...args] = findCompiler();
const flags = [...args, '-std=c++20', '-O1', '-g1', '-pthread', '-fsanitize=thread', '-Inative'];

t.test('parts of stages hand on memory, and idle threads take those of late ones', async (t) => {
  const folder = t.testdir();
  writeFileSync(join(folder, 'empty.cc'), 'int main() {}\n');
  const linked = spawnSync(program, [...flags, join(folder, 'empty.cc'), '-o', join(folder, 'empty')], { cwd: root });
  if (linked.status !== 0) {
    t.pass('runs clean', { skip: `${program} has no thread sanitizer` });
    return;
  }
  const binary = join(folder, 'thread-pool');
  const sources = ['test/ops/thread_pool_test.cc', 'native/cpu/thread_pool.cc'];
  execFileSync(program, [...flags, ...sources, '-o', binary], { cwd: root });
  const { status, stdout, stderr } = spawnSync(binary, { encoding: 'utf8' });
  t.equal(status, 0, stdout + stderr);
});
