/** Builds nds_cuda.so, when something changed: `NDS_CUDA=nvcc|emulated node native/build-cuda.mjs [--out DIR]`. `build.mjs` calls it too. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { findCompiler, hasStaticRuntime } from './tools/compilers.mjs';
import { findCudaMode, findNvcc, isCudaSource, linkCudaArgs, planCudaUnits } from './tools/cuda.mjs';
import { withLock } from './tools/lock.mjs';
import { parseFlags } from './tools/plan.mjs';
import { run } from './tools/run.mjs';
import { findPackageRoot, nativeError } from './tools/sources.mjs';

const packageRoot = findPackageRoot();
const nativeDir = join(packageRoot, 'native');

/** @param {string} nativeFolder */
function listFiles(nativeFolder) {
  return readdirSync(nativeFolder, { recursive: true, encoding: 'utf8' }).map((file) => file.replaceAll('\\', '/'));
}

/**
 * @param {string} out folder of nds_cuda.so
 * @param {NodeJS.ProcessEnv} env
 */
export async function buildCuda(out, env = process.env) {
  const mode = findCudaMode(env);
  const library = join(out, 'nds_cuda.so');
  if (mode === 'off') {
    rmSync(library, { force: true });
    rmSync(join(out, 'cuda-stamp'), { force: true });
    return;
  }
  const files = listFiles(nativeDir).sort();
  const read = (/** @type {string} */ file) => readFileSync(join(nativeDir, file), 'utf8');
  const sources = files.filter((file) => isCudaSource(file, mode));
  const headerText = files
    .filter((file) => file.endsWith('.h'))
    .map(read)
    .join('\0');
  const archs = env['NDS_CUDA_ARCHS']?.split(/[;,]/);
  const { common } = parseFlags(read('flags.txt'));
  const units = planCudaUnits({ sources, common, mode, arch: process.arch, nativeDir, ...(archs === undefined ? {} : { archs }) });
  const programs = { compiler: findCompiler(env), nvcc: [findNvcc(env) ?? 'nvcc'] };
  const keyOf = (/** @type {import('./tools/cuda.mjs').CudaUnit} */ unit) =>
    createHash('sha256')
      .update(JSON.stringify([programs[unit.program], unit.args, read(unit.source), headerText]))
      .digest('hex');
  const stamp = createHash('sha256').update(units.map(keyOf).join()).digest('hex');
  const isFresh = () =>
    existsSync(library) && existsSync(join(out, 'cuda-stamp')) && readFileSync(join(out, 'cuda-stamp'), 'utf8') === stamp;
  if (isFresh()) return;
  const objectDir = join(out, `objects-cuda-${mode}`);
  mkdirSync(objectDir, { recursive: true });
  await withLock(join(out, 'cuda-lock'), async () => {
    if (isFresh()) return;
    console.error(`Building the CUDA backend with ${mode === 'nvcc' ? programs.nvcc.join(' ') : 'the emulated device'}.`);
    const queue = [...units];
    const work = async () => {
      for (let unit = queue.shift(); unit !== undefined; unit = queue.shift()) {
        const object = join(objectDir, unit.object);
        const key = keyOf(unit);
        if (existsSync(object) && existsSync(`${object}.key`) && readFileSync(`${object}.key`, 'utf8') === key) continue;
        const [program = '', ...first] = programs[unit.program];
        const output = await run(program, [...first, ...unit.args, '-c', join(nativeDir, unit.source), '-o', object]);
        if (output.includes('warning')) console.error(output.trimEnd());
        writeFileSync(`${object}.key`, key);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, work));
    const objects = units.map(({ object }) => join(objectDir, object));
    const staticRuntime = hasStaticRuntime(programs.compiler);
    const [linker = '', ...first] = mode === 'nvcc' ? programs.nvcc : programs.compiler;
    await run(linker, [...first, ...linkCudaArgs({ objects, output: `${library}.new`, mode, staticRuntime })]);
    renameSync(`${library}.new`, library);
    writeFileSync(join(out, 'cuda-stamp'), stamp);
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({ options: { out: { type: 'string' } } });
  try {
    if (findCudaMode() === 'off') throw nativeError('Expected NDS_CUDA=nvcc or NDS_CUDA=emulated, or nvcc on PATH');
    await buildCuda(values.out ?? join(packageRoot, 'build', 'native'));
  } catch (error) {
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
    console.error(`${message} [${code ?? 'ERR_INTERNAL'}]`);
    process.exitCode = 70;
  }
}
