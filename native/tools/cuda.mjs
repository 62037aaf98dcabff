/**
 * How nds_cuda.so is built: by nvcc, or by the C++ compiler against the emulated device. Pure except for the search for
 * nvcc.
 */
import { existsSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { findCompiler, which } from './compilers.mjs';
import { unitsOf } from './plan.mjs';
import { nativeError } from './sources.mjs';

/**
 * @typedef {'nvcc' | 'emulated' | 'off'} CudaMode
 * @typedef {{ sources: string[], object: string, program: 'nvcc' | 'compiler', args: string[] }} CudaUnit
 */

/** Folders under native/ whose sources make up nds_cuda.so; from step/ it uses headers only. */
const folders = ['core', 'comm', 'cuda'];
/** Compute capabilities with machine code; the newest also as PTX, for later devices. */
const defaultArchs = ['80', '90'];

/**
 * The mode that `NDS_CUDA` names; by default nvcc if found.
 * @param {NodeJS.ProcessEnv} env
 * @returns {CudaMode}
 */
export function findCudaMode(env = process.env) {
  const wanted = env['NDS_CUDA'] ?? '';
  const nvcc = findNvcc(env);
  if (wanted === '') return nvcc === null ? 'off' : 'nvcc';
  if (wanted !== 'nvcc' && wanted !== 'emulated' && wanted !== 'off') {
    throw nativeError(`Expected nvcc, emulated or off for NDS_CUDA but received '${wanted}'`);
  }
  if (wanted === 'nvcc' && nvcc === null) {
    throw nativeError('Expected nvcc on PATH, in /usr/local/cuda/bin or named by NVCC for NDS_CUDA=nvcc but found none');
  }
  return wanted;
}

/**
 * Absolute path of nvcc, or `null`: NVCC if set, else nvcc on PATH, else in the usual place.
 * @param {NodeJS.ProcessEnv} env
 */
export function findNvcc(env = process.env) {
  const wanted = env['NVCC'];
  if (!wanted) return which('nvcc', env) ?? which('/usr/local/cuda/bin/nvcc', env);
  const found = which(wanted, env);
  if (found === null) throw nativeError(`Expected NVCC to name nvcc but received "${wanted}", which is not there`);
  return found;
}

/**
 * The nvcc command, with CXX as its host compiler if set.
 * @param {NodeJS.ProcessEnv} env
 */
export function nvccCommand(env = process.env) {
  const compiler = findCompiler(env);
  const hostCompiler = env['CXX'] && compiler.length === 1 ? ['-ccbin', compiler[0] ?? ''] : [];
  return [findNvcc(env) ?? 'nvcc', ...hostCompiler];
}

/**
 * Folder of a static runtime that nvcc does not find by itself, or `null`: toolkits from Python wheels have it in lib/,
 * not in lib64/.
 * @param {string} nvcc
 */
export function nvccLibraryFolder(nvcc) {
  const folder = join(dirname(realpathSync(nvcc)), '..', 'lib');
  return existsSync(join(folder, 'libcudart_static.a')) ? folder : null;
}

/**
 * Whether a source is part of nds_cuda.so.
 * @param {string} source relative to native/
 * @param {CudaMode} mode
 */
export function isCudaSource(source, mode) {
  const [folder = ''] = source.split('/');
  if (!/\.(?:cc|cu)$/.test(source)) return false;
  return folders.includes(folder) || (mode === 'emulated' && folder === 'simt');
}

/**
 * @param {{ sources: string[], common: string[], mode: CudaMode, arch: string, nativeDir: string, archs?: string[],
 *   isClang?: boolean }} options `sources` relative to `nativeDir`; `arch` as in `process.arch`; `isClang`: the compiler is clang.
 * @returns {CudaUnit[]}
 */
export function planCudaUnits({ sources, common, mode, arch, nativeDir, archs = defaultArchs, isClang = false }) {
  const include = ['-I', nativeDir];
  // Loops stay loops: sanitizers would check the calls of memset and memcpy that a compiler makes of them.
  const noLoopCalls = isClang ? ['-fno-builtin-memset', '-fno-builtin-memcpy'] : ['-fno-tree-loop-distribute-patterns'];
  return unitsOf(sources.filter((source) => isCudaSource(source, mode))).map((unit) => {
    const [folder = ''] = unit.sources[0]?.split('/') ?? [];
    if (mode === 'nvcc' && folder === 'cuda') return { ...unit, program: 'nvcc', args: [...nvccArgs(archs), ...include, '-x', 'cu'] };
    const isEmulated = mode === 'emulated' && folder === 'cuda';
    // The emulation calls fma for every fused multiply-add; without the instruction each is a library call.
    const fma = mode === 'emulated' && arch === 'x64' ? ['-mavx2', '-mfma'] : [];
    const simt = folder === 'simt' ? [...noLoopCalls, '-ftls-model=initial-exec'] : [];
    const emulated = isEmulated ? ['-DNDS_EMULATED', '-O2', '-x', 'c++'] : [];
    return { ...unit, program: 'compiler', args: [...common, ...fma, ...simt, ...emulated, ...include] };
  });
}

/** @param {string[]} archs */
function nvccArgs(archs) {
  const newest = archs.at(-1) ?? '';
  const codes = archs.flatMap((arch) => ['-gencode', `arch=compute_${arch},code=sm_${arch}`]);
  const hostFlags = '-fPIC,-fvisibility=hidden,-fvisibility-inlines-hidden,-ffp-contract=off,-pthread';
  return ['-std=c++20', '-O3', ...codes, '-gencode', `arch=compute_${newest},code=compute_${newest}`, '-Xcompiler', hostFlags];
}

/**
 * Arguments that link nds_cuda.so, for nvcc or for the compiler.
 * @param {{ objects: string[], output: string, mode: CudaMode, staticRuntime: boolean, exports: string,
 *   libraryFolder?: string | null }} options `exports`: the version script.
 * @returns {string[]}
 */
export function linkCudaArgs({ objects, output, mode, staticRuntime, exports, libraryFolder = null }) {
  const runtime = staticRuntime ? ['-static-libstdc++', '-static-libgcc'] : [];
  const flags = ['-pthread', '-Wl,-z,now', `-Wl,--version-script=${exports}`, ...runtime];
  if (mode === 'emulated') return ['-shared', ...flags, '-o', output, ...objects, '-ldl'];
  const passed = flags.flatMap((flag) => (flag.startsWith('-Wl,') ? ['-Xlinker', flag.slice(4)] : ['-Xcompiler', flag]));
  const libraries = libraryFolder === null ? [] : ['-L', libraryFolder];
  return ['-shared', '-cudart', 'static', ...libraries, ...passed, '-o', output, ...objects, '-ldl', '-lrt'];
}
