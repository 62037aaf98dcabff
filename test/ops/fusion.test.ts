/** Operators that the CPU runs without barriers in between, and the memory of their values. */
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findCompiler } from '../../native/tools/compilers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const [program = '', ...args] = findCompiler();

t.test('row-wise operators join, and values of such a run lie apart', async (t) => {
  const binary = join(t.testdir(), 'fusion');
  const sources = ['test/ops/fusion_test.cc', 'native/cpu/fusion.cc', 'native/core/program/arena.cc'];
  execFileSync(program, [...args, '-std=c++20', '-O1', '-Inative', ...sources, '-o', binary], { cwd: root });
  const { status, stdout, stderr } = spawnSync(binary, { encoding: 'utf8' });
  t.equal(status, 0, stdout + stderr);
});
