/** Checks the format of the C++ files with clang-format, if that is installed; `--write` formats them. */
import { spawnSync } from 'node:child_process';
import { listFiles, root } from './files.mjs';

const files = listFiles(['native', 'test'], ['.cc', '.h', '.cu']);
const mode = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '--Werror'];
const { status, error } = spawnSync('clang-format', [...mode, ...files], { cwd: root, stdio: 'inherit' });
if (/** @type {NodeJS.ErrnoException | undefined} */ (error)?.code === 'ENOENT') {
  console.error('Skipped the format of C++ files: there is no clang-format on PATH');
} else {
  process.exitCode = status ?? 1;
}
