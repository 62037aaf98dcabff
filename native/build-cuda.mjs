/**
 * Builds nds_cuda.so, when something changed: `NDS_CUDA=nvcc|emulated node native/build-cuda.mjs [--out DIR]`. `build.mjs` calls it too.
 * CMake has no part in it: its CUDA language refuses toolkits that nvcc itself is content with, and this way there is one list of flags.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { addonFolder } from './load.mjs';
import { compileUnits, unitKeys } from './tools/compile.mjs';
import { findCompiler, hasStaticRuntime, isClang } from './tools/compilers.mjs';
import { findCudaMode, isCudaSource, linkCudaArgs, nvccCommand, nvccLibraryFolder, planCudaUnits } from './tools/cuda.mjs';
import { readCudaBuild, writeCudaBuild } from './tools/cuda-record.mjs';
import { withLock } from './tools/lock.mjs';
import { parseFlags } from './tools/plan.mjs';
import { run } from './tools/run.mjs';
import { findPackageRoot, nativeError } from './tools/sources.mjs';

const packageRoot = findPackageRoot();
const nativeDir = join(packageRoot, 'native');
const exports = join(nativeDir, 'cuda', 'exports.map');

/**
 * What is compiled, and by which programs.
 * @param {import('./tools/cuda.mjs').CudaMode} mode
 * @param {NodeJS.ProcessEnv} env
 */
function planBuild(mode, env) {
  const files = readdirSync(nativeDir, { recursive: true, encoding: 'utf8' }).sort();
  const { common } = parseFlags(readFileSync(join(nativeDir, 'flags.txt'), 'utf8'));
  const archs = (env['NDS_CUDA_ARCHS'] || '80;90').split(/[;,]/);
  const sources = files.filter((file) => isCudaSource(file, mode));
  const programs = { compiler: findCompiler(env), nvcc: mode === 'nvcc' ? nvccCommand(env) : [] };
  const options = { sources, common, mode, arch: process.arch, nativeDir, archs, isClang: isClang(programs.compiler) };
  const units = planCudaUnits(options).map((unit) => ({
    ...unit,
    sources: unit.sources.map((source) => `native/${source}`),
    program: programs[unit.program],
  }));
  return { units, programs, archs: mode === 'nvcc' ? archs : [] };
}

/**
 * @param {string} out folder of nds_cuda.so
 * @param {{ env?: NodeJS.ProcessEnv, discardObjects?: boolean }} [options]
 * @throws what is wrong with the build; the record in `out` says it too.
 */
export async function buildCuda(out, { env = process.env, discardObjects = false } = {}) {
  const mode = findCudaMode(env);
  const library = join(out, 'nds_cuda.so');
  mkdirSync(out, { recursive: true });
  if (mode === 'off') {
    rmSync(library, { force: true });
    writeCudaBuild(out, { mode, compiler: '', archs: [], stamp: '', failure: null });
    return;
  }
  const plan = planBuild(mode, env);
  const stamp = createHash('sha256')
    .update(plan.units.map(unitKeys(packageRoot)).join())
    .update(readFileSync(exports))
    .digest('hex');
  const isFresh = () => existsSync(library) && readCudaBuild(out)?.stamp === stamp;
  if (isFresh()) return;
  await withLock(join(out, 'cuda-lock'), async () => {
    if (isFresh()) return;
    const compiler = (mode === 'nvcc' ? plan.programs.nvcc : plan.programs.compiler).join(' ');
    const record = { mode, compiler, archs: plan.archs, stamp };
    console.error(
      `Building the CUDA backend with ${mode === 'nvcc' ? compiler : `${compiler} for the emulated device`}; this takes minutes.`,
    );
    const objectDir = join(out, `objects-cuda-${mode}`);
    try {
      await compile(plan, mode, objectDir, `${library}.new`);
      renameSync(`${library}.new`, library);
      writeCudaBuild(out, { ...record, failure: null });
    } catch (error) {
      rmSync(library, { force: true });
      writeCudaBuild(out, { ...record, stamp: '', failure: /** @type {Error} */ (error).message });
      throw error;
    }
    if (discardObjects) rmSync(objectDir, { recursive: true, force: true });
  });
}

/**
 * @param {ReturnType<typeof planBuild>} plan
 * @param {import('./tools/cuda.mjs').CudaMode} mode
 * @param {string} objectDir
 * @param {string} output
 */
async function compile({ units, programs }, mode, objectDir, output) {
  mkdirSync(objectDir, { recursive: true });
  const { objects, output: text } = await compileUnits(units, { root: packageRoot, out: objectDir });
  if (text.includes('warning')) console.error(text.trimEnd());
  const [linker = '', ...first] = programs[mode === 'nvcc' ? 'nvcc' : 'compiler'];
  const options = {
    objects,
    output,
    mode,
    exports,
    staticRuntime: hasStaticRuntime(programs.compiler),
    libraryFolder: mode === 'nvcc' ? nvccLibraryFolder(linker) : null,
  };
  await run(linker, [...first, ...linkCudaArgs(options)]);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({ options: { out: { type: 'string' } } });
  try {
    if (findCudaMode() === 'off') throw nativeError('Expected NDS_CUDA=nvcc or NDS_CUDA=emulated, or nvcc on PATH');
    await buildCuda(values.out ?? addonFolder(packageRoot));
  } catch (error) {
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
    console.error(`${message} [${code ?? 'ERR_INTERNAL'}]`);
    process.exitCode = 70;
  }
}
