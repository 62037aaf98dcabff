/** Finds the compiler and the build tools of this machine. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { nativeError } from './sources.mjs';

const oldestCmake = [3, 18];

/**
 * Absolute path of a program, or `null`.
 * @param {string} name
 * @param {NodeJS.ProcessEnv} env
 */
export function which(name, env = process.env) {
  const candidates = name.includes('/') ? [name] : (env['PATH'] ?? '').split(delimiter).map((dir) => join(dir, name));
  return candidates.find(isExecutable) ?? null;
}

/** @param {string} path */
function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * The compiler's command, e.g. `['ccache', 'g++']`: CXX if set, else the first of g++, clang++ and c++ that is found.
 * @param {NodeJS.ProcessEnv} env
 * @returns {string[]}
 */
export function findCompiler(env = process.env) {
  const wanted = (env['CXX'] ?? '').trim();
  if (wanted !== '') {
    const command = wanted.split(/\s+/);
    if (which(/** @type {string} */ (command[0]), env) === null) {
      throw nativeError(`Expected CXX to name a C++20 compiler but received "${wanted}", which is not there`);
    }
    return command;
  }
  const found = ['g++', 'clang++', 'c++'].find((name) => which(name, env) !== null);
  if (found !== undefined) return [found];
  throw nativeError(
    'Expected a C++20 compiler but found none: install one (Debian, Ubuntu: apt-get install g++ cmake; Fedora: dnf install gcc-c++ cmake; ' +
      'macOS: xcode-select --install) or name yours in CXX',
  );
}

/**
 * CMake and its generator, or `null` if CMake or a tool that runs its files is missing or too old.
 * @param {NodeJS.ProcessEnv} env
 */
export function findCmake(env = process.env) {
  const cmake = which('cmake', env);
  const generator = which('ninja', env) !== null ? 'Ninja' : which('make', env) !== null ? 'Unix Makefiles' : null;
  if (cmake === null || generator === null) return null;
  const [, major, minor] = /(\d+)\.(\d+)/.exec(execFileSync(cmake, ['--version'], { encoding: 'utf8' })) ?? [];
  const [oldestMajor = 0, oldestMinor = 0] = oldestCmake;
  const isNew = Number(major) > oldestMajor || (Number(major) === oldestMajor && Number(minor) >= oldestMinor);
  return isNew ? { cmake, generator } : null;
}

/**
 * Whether the compiler is clang, by what it says of itself.
 * @param {string[]} compiler
 */
export function isClang([program = '', ...args]) {
  return execFileSync(program, [...args, '--version'], { encoding: 'utf8' }).includes('clang');
}

/**
 * Whether the compiler can link its C++ runtime statically. libc++ is linked as a library: its archive lacks its ABI's.
 * @param {string[]} compiler
 */
export function hasStaticRuntime(compiler) {
  const [program = '', ...args] = compiler;
  if (process.platform !== 'linux' || args.includes('-stdlib=libc++')) return false;
  return ['libstdc++.a', 'libgcc.a'].every((file) =>
    isAbsolute(execFileSync(program, [...args, `-print-file-name=${file}`], { encoding: 'utf8' }).trim()),
  );
}
