/** Runs all tests with tap, or those on the command line; the last line is `N passed, N failed, N skipped`. */
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { root } from './files.mjs';
import { closingLine, TapSummary } from './tap-summary.mjs';

const require = createRequire(import.meta.url);
const packageFolder = (/** @type {string} */ name) => dirname(require.resolve(`${name}/package.json`));
const tap = join(packageFolder('tap'), 'dist', 'esm', 'run.mjs');

// Ten times the slowest file's time on two quiet cores; package.json has the limit of a partial run.
const limit = process.env.NDS_TEST_FULL ? ['--timeout=3600'] : [];
const child = spawn(process.execPath, [tap, 'run', '--reporter=tap', ...limit, ...process.argv.slice(2)], {
  cwd: root,
  stdio: ['ignore', 'pipe', 'inherit'],
});
const summary = new TapSummary();
createInterface({ input: child.stdout }).on('line', (line) => {
  const shown = summary.take(line);
  if (shown !== null) console.log(shown);
});
child.on('close', (code, signal) => {
  const { passed, failed } = summary.counts;
  const hasFailed = code !== 0 || signal !== null || passed + failed === 0;
  console.log(closingLine(summary.counts, hasFailed));
  process.exitCode = hasFailed ? 1 : 0;
});
