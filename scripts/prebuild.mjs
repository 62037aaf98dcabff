/**
 * Makes the prebuilt cores that a package carries, by zig's C++ compiler: `node scripts/prebuild.mjs [PLATFORM-ARCH…]`. NDS_ZIG names zig;
 * `off` = none. What cannot be made is left out, and said.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compileUnits } from '../native/tools/compile.mjs';
import { which } from '../native/tools/compilers.mjs';
import { linkArgs, planUnits } from '../native/tools/plan.mjs';
import { oldestGlibc, prebuiltFolder } from '../native/tools/prebuilt.mjs';
import { run } from '../native/tools/run.mjs';
import { hashSources, listSources, nodeApiFolders } from '../native/tools/sources.mjs';
import { copyInPlace } from '../native/tools/user-cache.mjs';
import { root } from './files.mjs';
import { newestGlibc } from './glibc.mjs';

/** Those linked for macOS have not been run. */
const targets = [
  { platform: 'linux', arch: 'x64', zig: `x86_64-linux-gnu.${oldestGlibc}` },
  { platform: 'linux', arch: 'arm64', zig: `aarch64-linux-gnu.${oldestGlibc}` },
  { platform: 'darwin', arch: 'arm64', zig: 'aarch64-macos.11.0' },
  { platform: 'darwin', arch: 'x64', zig: 'x86_64-macos.11.0' },
];

/**
 * zig's command, or `null`: NDS_ZIG if set, else zig on PATH, else the one of PyPI's `ziglang`.
 * @param {NodeJS.ProcessEnv} env
 * @returns {string[] | null}
 */
function findZig(env) {
  const wanted = (env['NDS_ZIG'] ?? '').trim();
  if (wanted === 'off') return null;
  if (wanted !== '') return wanted.split(/\s+/);
  if (which('zig', env) !== null) return ['zig'];
  try {
    execFileSync('python3', ['-m', 'ziglang', 'version'], { stdio: 'ignore' });
    return ['python3', '-m', 'ziglang'];
  } catch {
    return null;
  }
}

/**
 * @param {typeof targets[number]} target
 * @param {string[]} zig
 */
async function make({ platform, arch, zig: triple }, zig) {
  const nativeDir = join(root, 'native');
  const objectDir = join(root, 'build', 'prebuilds', `${platform}-${arch}`);
  const compiler = [...zig, 'c++', '-target', triple];
  const { addonApi, headers } = nodeApiFolders(root);
  const flagsText = readFileSync(join(nativeDir, 'flags.txt'), 'utf8');
  const { sources } = listSources(nativeDir);
  const planned = planUnits({ sources, flagsText, arch, nativeDir, systemIncludes: [addonApi, headers] });
  const units = planned.map((unit) => ({ ...unit, sources: unit.sources.map((source) => `native/${source}`), program: compiler }));
  mkdirSync(objectDir, { recursive: true });
  const { objects, output } = await compileUnits(units, { root, out: objectDir });
  if (output.trim() !== '') console.error(output.trimEnd());
  const addon = join(objectDir, 'nds.node');
  const [program = '', ...first] = compiler;
  await run(program, [...first, '-s', ...linkArgs({ objects, output: addon, platform, staticRuntime: true, nativeDir })]);
  if (platform === 'linux') refuseNewerGlibc(addon);
  writeFileSync(join(objectDir, 'sources'), hashSources(root));
  copyInPlace(addon, join(prebuiltFolder(root, platform, arch), 'nds.node'));
  return statSync(addon).size;
}

/** @param {string} addon */
function refuseNewerGlibc(addon) {
  const needed = newestGlibc(readFileSync(addon));
  if (needed === null || needed.localeCompare(oldestGlibc, 'en', { numeric: true }) <= 0) return;
  throw new Error(`Expected ${addon} to need glibc ${oldestGlibc} or older but received one that needs ${needed}`);
}

const wanted = process.argv.slice(2);
const zig = findZig(process.env);
// Of older sources, perhaps.
rmSync(join(root, 'prebuilds'), { recursive: true, force: true });
process.env['ZIG_GLOBAL_CACHE_DIR'] ??= join(root, 'build', 'prebuilds', 'zig');
if (zig === null)
  console.error('No prebuilt cores: zig was not found (pip install ziglang, or name it in NDS_ZIG); the package builds on first use.');
for (const target of zig === null ? [] : targets) {
  const name = `${target.platform}-${target.arch}`;
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  try {
    const begin = performance.now();
    const bytes = await make(target, /** @type {string[]} */ (zig));
    console.error(`${name}: ${(bytes / 1e6).toFixed(1)} MB, made in ${((performance.now() - begin) / 1000).toFixed(0)} s`);
  } catch (error) {
    console.error(`${name} is left out: ${/** @type {Error} */ (error).message}`);
  }
}
