/**
 * Makes a checkout ready, without prompts: installs packages when the lock file changed, and builds the native core when
 * its sources changed. `--to-run` leaves out packages that only development needs, nine in ten; `--no-native` the core.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
// Before 20.11 a loader given by --import does not apply to the modules imported after it.
const oldestNode = [20, 11];

/**
 * @param {string} message
 * @param {number} code
 * @returns {never}
 */
function fail(message, code) {
  console.error(message);
  process.exit(code);
}

/**
 * @param {string} program
 * @param {string[]} args
 */
function run(program, args) {
  const { status, signal, error } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (error !== undefined) fail(`Expected to run ${program} but received: ${error.message}`, 70);
  if (signal !== null) fail(`Expected ${program} ${args.join(' ')} to end but it was killed by ${signal}`, 70);
  if (status !== 0) process.exit(status ?? 70);
}

/** @param {boolean} toRun */
function installPackages(toRun) {
  const stamp = join(root, 'node_modules', '.nds-installed');
  const hash = createHash('sha256');
  for (const file of ['package.json', 'package-lock.json', '.npmrc']) hash.update(readFileSync(join(root, file)));
  const wanted = hash.update(`${process.platform} ${process.arch}`).digest('hex');
  const toRunOnly = `${wanted} to run`;
  const installed = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
  if (installed === wanted || (toRun && installed === toRunOnly)) return;
  console.error('Installing packages');
  // npm names its npm-cli.js when it runs a script; otherwise the npm on PATH is used.
  const npmCli = process.env['npm_execpath'];
  const [program, ...first] = npmCli?.endsWith('.js') ? [process.execPath, npmCli] : ['npm'];
  const dev = toRun ? '--omit=dev' : '--include=dev';
  run(program, [...first, 'ci', dev, '--no-audit', '--no-fund', '--loglevel=error']);
  writeFileSync(stamp, toRun ? toRunOnly : wanted);
}

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
const [oldestMajor = 0, oldestMinor = 0] = oldestNode;
if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
  fail(`Expected Node ${oldestNode.join('.')} or newer but received ${process.version}: see https://nodejs.org`, 70);
}
installPackages(process.argv.includes('--to-run'));
if (!process.argv.includes('--no-native')) run(process.execPath, [join(root, 'native', 'build.mjs')]);
