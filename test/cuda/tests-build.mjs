/** Compiles the tests of CUDA operators and the benchmark of kernels, with nvcc or against the emulated device; recompiles only what changed. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compileUnits } from '../../native/tools/compile.mjs';
import { findCompiler, isClang } from '../../native/tools/compilers.mjs';
import { nvccCommand, nvccLibraryFolder, planCudaUnits } from '../../native/tools/cuda.mjs';
import { parseFlags } from '../../native/tools/plan.mjs';
import { run } from '../../native/tools/run.mjs';

/**
 * What a variant adds to the flags of the emulation, which is never instrumented itself, and to those of everything else.
 * @type {Record<string, { emulation: string[], code: string[] }>}
 */
export const variants = {
  plain: { emulation: [], code: [] },
  asan: { emulation: ['-DSIMT_ASAN'], code: ['-g1', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'] },
  tsan: { emulation: ['-DSIMT_TSAN'], code: ['-g1', '-fsanitize=thread'] },
  nvcc: { emulation: [], code: [] },
};

/** The CPU's operators that the tests of sampling compare with, compiled for AVX2. */
const reference = /^(?:cpu\/kernels\/(?:accept|lanes|log_probabilities|sample|sample_filtered)\.isa|step\/process_logits)\.cc$/;
const referenceFlags = ['-DNDS_ISA=1', '-DNDS_ISA_NAMESPACE=avx2'];

const nvccFlags = ['-Xptxas', '-v'];

/**
 * @param {string} root
 * @param {string} variant
 * @param {'test' | 'kernel_bench'} program
 * @returns {import('../../native/tools/compile.mjs').Unit[]}
 */
function planUnits(root, variant, program) {
  const nativeDir = join(root, 'native');
  const mode = variant === 'nvcc' ? 'nvcc' : 'emulated';
  const { emulation = [], code = [] } = variants[variant] ?? {};
  const files = readdirSync(nativeDir, { recursive: true, encoding: 'utf8' }).sort();
  const { common, isas } = parseFlags(readFileSync(join(nativeDir, 'flags.txt'), 'utf8'));
  const archs = process.env['NDS_CUDA_ARCHS']?.split(/[;,]/);
  const programs = { compiler: findCompiler(), nvcc: mode === 'nvcc' ? nvccCommand() : [] };
  const isNeeded = (/** @type {string} */ file) => /^(?:simt|core|cuda\/kernels)\//.test(file);
  const kernels = planCudaUnits({
    sources: files.filter(isNeeded),
    common,
    mode,
    arch: process.arch,
    nativeDir,
    isClang: isClang(programs.compiler),
    ...(archs === undefined ? {} : { archs }),
  }).map(({ sources, object, program, args }) => ({
    sources: sources.map((source) => `native/${source}`),
    object,
    program: programs[program],
    args: [...args, ...(sources[0]?.startsWith('simt/') ? emulation : code), ...(program === 'nvcc' ? nvccFlags : [])],
  }));
  const kernel = kernels.find(({ sources }) => sources[0]?.includes('/kernels/'));
  const compiler = programs[mode === 'nvcc' ? 'nvcc' : 'compiler'];
  const unitsIn = (/** @type {string} */ folder, /** @type {RegExp} */ names) =>
    readdirSync(join(root, folder))
      .filter((file) => names.test(file))
      .map((file) => {
        const args = [...(kernel?.args ?? []), '-I', join(root, folder)];
        return { sources: [`${folder}/${file}`], object: `test.${file}.o`, program: compiler, args };
      });
  const { flags: vectorFlags = [] } = isas.find(({ name }) => name === 'avx2') ?? {};
  const references = {
    sources: files.filter((file) => reference.test(file)).map((file) => `native/${file}`),
    object: 'reference.o',
    program: programs.compiler,
    args: [...common, ...vectorFlags, ...referenceFlags, '-I', nativeDir],
  };
  if (program === 'kernel_bench') return [...kernels, ...unitsIn('test/bench/cuda', /\.cu$/)];
  return [...kernels, ...unitsIn('test/cuda', /\.cc$/), references];
}

/**
 * Builds `<out>/test`, or `<out>/kernel_bench`, from the sources below `root` and returns its path.
 *
 * @param {{ root: string, variant: string, out: string, base?: string, program?: 'test' | 'kernel_bench' }} options `base`: the folder of
 *   another build, whose objects serve where their sources and arguments are the same.
 */
export async function buildTests({ root, variant, out, base = out, program = 'test' }) {
  if (!Object.hasOwn(variants, variant)) throw new Error(`Expected ${Object.keys(variants).join(', ')} but received ${variant}`);
  mkdirSync(out, { recursive: true });
  const isNvcc = variant === 'nvcc';
  const { objects, output } = await compileUnits(planUnits(root, variant, program), { root, out, base });
  if (isNvcc && program === 'test' && output !== '') writeFileSync(join(out, 'ptxas.log'), output);
  const binary = join(out, program);
  const linkKey = JSON.stringify(objects.map((object) => [object, readFileSync(`${object}.key`, 'utf8')]));
  if (existsSync(binary) && existsSync(`${binary}.key`) && readFileSync(`${binary}.key`, 'utf8') === linkKey) return binary;
  const [linker = '', ...first] = isNvcc ? nvccCommand() : findCompiler();
  const libraryFolder = isNvcc ? nvccLibraryFolder(linker) : null;
  const flags = isNvcc ? ['-cudart', 'static', ...(libraryFolder === null ? [] : ['-L', libraryFolder])] : ['-pthread'];
  await run(linker, [...first, ...(variants[variant]?.code ?? []), ...flags, ...objects, '-ldl', '-o', binary]);
  writeFileSync(`${binary}.key`, linkKey);
  return binary;
}
