/** Compiles the tests of CUDA operators, with nvcc or against the emulated device; recompiles only what changed. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { findCompiler } from '../../native/tools/compilers.mjs';
import { nvccCommand, nvccLibraryFolder, planCudaUnits } from '../../native/tools/cuda.mjs';
import { parseFlags } from '../../native/tools/plan.mjs';
import { run } from '../../native/tools/run.mjs';

/**
 * `source` is relative to the root.
 * @typedef {{ source: string, object: string, program: 'nvcc' | 'compiler', args: string[] }} Unit
 */

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
 * @returns {Unit[]}
 */
function planUnits(root, variant) {
  const nativeDir = join(root, 'native');
  const testDir = join(root, 'test', 'cuda');
  const mode = variant === 'nvcc' ? 'nvcc' : 'emulated';
  const { emulation = [], code = [] } = variants[variant] ?? {};
  const files = readdirSync(nativeDir, { recursive: true, encoding: 'utf8' }).sort();
  const { common, isas } = parseFlags(readFileSync(join(nativeDir, 'flags.txt'), 'utf8'));
  const archs = process.env['NDS_CUDA_ARCHS']?.split(/[;,]/);
  const isNeeded = (/** @type {string} */ file) => /^(?:simt|core|cuda\/kernels)\//.test(file);
  const kernels = planCudaUnits({
    sources: files.filter(isNeeded),
    common,
    mode,
    arch: process.arch,
    nativeDir,
    ...(archs === undefined ? {} : { archs }),
  }).map((unit) => ({
    ...unit,
    source: join('native', unit.source),
    args: [...unit.args, ...(unit.source.startsWith('simt/') ? emulation : code), ...(unit.program === 'nvcc' ? nvccFlags : [])],
  }));
  const kernelArgs = kernels.find(({ source }) => source.includes('/kernels/'))?.args ?? [];
  const tests = readdirSync(testDir)
    .filter((file) => file.endsWith('.cc'))
    .map((file) => ({
      source: join('test', 'cuda', file),
      object: `test.${file}.o`,
      program: /** @type {Unit['program']} */ (mode === 'nvcc' ? 'nvcc' : 'compiler'),
      args: [...kernelArgs, '-I', testDir],
    }));
  const { flags: vectorFlags = [] } = isas.find(({ name }) => name === 'avx2') ?? {};
  const references = files
    .filter((file) => reference.test(file))
    .map((file) => ({
      source: join('native', file),
      object: `reference.${file.replaceAll('/', '.')}.o`,
      program: /** @type {Unit['program']} */ ('compiler'),
      args: [...common, ...vectorFlags, ...referenceFlags, '-I', nativeDir],
    }));
  return [...kernels, ...tests, ...references];
}

/**
 * A source and all of our headers that it includes, relative to the root.
 * @param {string} root
 * @param {string} source
 */
function includedFiles(root, source) {
  const found = new Set([source]);
  // A set hands out what is added to it meanwhile.
  for (const file of found) {
    for (const [, name = ''] of readFileSync(join(root, file), 'utf8').matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
      const header = [dirname(file), 'native', join('test', 'cuda')]
        .map((folder) => join(folder, name))
        .find((path) => existsSync(join(root, path)));
      if (header !== undefined) found.add(header);
    }
  }
  return [...found];
}

/**
 * Builds `<out>/test` from the sources below `root` and returns its path.
 *
 * @param {{ root: string, variant: string, out: string, base?: string }} options `base`: the folder of another build, whose objects serve
 *   where their sources and arguments are the same.
 */
export async function buildTests({ root, variant, out, base = out }) {
  if (!Object.hasOwn(variants, variant)) throw new Error(`Expected ${Object.keys(variants).join(', ')} but received ${variant}`);
  mkdirSync(out, { recursive: true });
  const isNvcc = variant === 'nvcc';
  const compiler = findCompiler();
  const nvcc = isNvcc ? nvccCommand() : [];
  const units = planUnits(root, variant);
  const queue = units.map((unit, index) => ({ ...unit, index }));
  /** @type {string[]} */
  const objects = [];
  let log = '';
  const work = async () => {
    for (let unit = queue.shift(); unit !== undefined; unit = queue.shift()) {
      const [program = '', ...first] = unit.program === 'nvcc' ? nvcc : compiler;
      const texts = includedFiles(root, unit.source).map((file) => [file, readFileSync(join(root, file), 'utf8')]);
      const portableArgs = unit.args.map((arg) => arg.replaceAll(root, '.'));
      const key = createHash('sha256')
        .update(JSON.stringify([program, first, portableArgs, texts]))
        .digest('hex');
      const isBuilt = (/** @type {string} */ object) =>
        existsSync(object) && existsSync(`${object}.key`) && readFileSync(`${object}.key`, 'utf8') === key;
      const object = [base, out].map((folder) => join(folder, unit.object)).find(isBuilt) ?? join(out, unit.object);
      objects[unit.index] = object;
      if (isBuilt(object)) continue;
      log += await run(program, [...first, ...unit.args, '-c', join(root, unit.source), '-o', object]);
      writeFileSync(`${object}.key`, key);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  if (isNvcc && log !== '') writeFileSync(join(out, 'ptxas.log'), log);
  const binary = join(out, 'test');
  const linkKey = JSON.stringify(objects.map((object) => [object, readFileSync(`${object}.key`, 'utf8')]));
  if (existsSync(binary) && existsSync(`${binary}.key`) && readFileSync(`${binary}.key`, 'utf8') === linkKey) return binary;
  const [linker = '', ...first] = isNvcc ? nvcc : compiler;
  const libraryFolder = isNvcc ? nvccLibraryFolder(linker) : null;
  const flags = isNvcc ? ['-cudart', 'static', ...(libraryFolder === null ? [] : ['-L', libraryFolder])] : ['-pthread'];
  await run(linker, [...first, ...(variants[variant]?.code ?? []), ...flags, ...objects, '-ldl', '-o', binary]);
  writeFileSync(`${binary}.key`, linkKey);
  return binary;
}
