/**
 * Builds the tests of CUDA operators into `<out>/test`, when something changed:
 * `node test/cuda/build.mjs [plain|asan|tsan|nvcc] [--out DIR]`. All but nvcc run on the emulated device.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findCompiler } from '../../native/tools/compilers.mjs';
import { findNvcc, planCudaUnits } from '../../native/tools/cuda.mjs';
import { parseFlags } from '../../native/tools/plan.mjs';
import { run } from '../../native/tools/run.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const nativeDir = join(root, 'native');
const testDir = join(root, 'test', 'cuda');

/** @type {Record<string, { emulation: string[], kernels: string[] }>} What a variant adds to the flags; the emulation itself is never instrumented. */
const variants = {
  plain: { emulation: [], kernels: [] },
  asan: { emulation: ['-DSIMT_ASAN'], kernels: ['-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'] },
  tsan: { emulation: ['-DSIMT_TSAN'], kernels: ['-g', '-fsanitize=thread'] },
  nvcc: { emulation: [], kernels: [] },
};

/** The CPU's kernels without vector instructions, as the reference of sampling. */
const referenceFlags = ['-DNDS_ISA=0', '-DNDS_ISA_NAMESPACE=portable', '-DNDS_ONLY_PORTABLE'];

/** @param {string} variant */
function planUnits(variant) {
  const mode = variant === 'nvcc' ? 'nvcc' : 'emulated';
  const { emulation = [], kernels = [] } = variants[variant] ?? {};
  const files = readdirSync(nativeDir, { recursive: true, encoding: 'utf8' }).sort();
  const { common } = parseFlags(readFileSync(join(nativeDir, 'flags.txt'), 'utf8'));
  const archs = process.env['NDS_CUDA_ARCHS']?.split(/[;,]/);
  const isNeeded = (/** @type {string} */ file) => file.startsWith('simt/') || file.startsWith('core/') || file.startsWith('cuda/kernels/');
  const kernelUnits = planCudaUnits({
    sources: files.filter(isNeeded),
    common,
    mode,
    arch: process.arch,
    nativeDir,
    ...(archs === undefined ? {} : { archs }),
  }).map((unit) => ({
    ...unit,
    source: join(nativeDir, unit.source),
    args: [...unit.args, ...(unit.source.startsWith('simt/') ? emulation : kernels)],
  }));
  const kernelArgs = kernelUnits.find(({ source }) => source.includes('/kernels/'))?.args ?? [];
  const tests = readdirSync(testDir)
    .filter((file) => file.endsWith('.cc'))
    .map((file) => ({
      source: join(testDir, file),
      object: `test.${file}.o`,
      program: mode === 'nvcc' ? 'nvcc' : 'compiler',
      args: [...kernelArgs, '-I', testDir],
    }));
  const reference = files
    .filter((file) => /^cpu\/(?:.*\.isa|process_logits)\.cc$/.test(file))
    .map((file) => ({
      source: join(nativeDir, file),
      object: `reference.${file.replaceAll('/', '.')}.o`,
      program: 'compiler',
      args: [...common, ...referenceFlags, '-I', nativeDir],
    }));
  return { units: [...kernelUnits, ...tests, ...reference], kernels, mode };
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { out: { type: 'string' } } });
const [variant = 'plain'] = positionals;
if (!Object.hasOwn(variants, variant)) throw new Error(`Expected ${Object.keys(variants).join(', ')} but received ${variant}`);
const out = values.out ?? join(root, 'build', 'cuda-tests', variant);
mkdirSync(out, { recursive: true });
const { units, kernels, mode } = planUnits(variant);
/** @type {Record<string, string[]>} */
const programs = { compiler: findCompiler(), nvcc: [findNvcc() ?? 'nvcc'] };
const headers = readdirSync(nativeDir, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.h'))
  .map((file) => readFileSync(join(nativeDir, file), 'utf8'));
const headerText = [...headers, readFileSync(join(testDir, 'harness.h'), 'utf8')].join('\0');
const queue = [...units];
let numCompiled = 0;
const work = async () => {
  for (let unit = queue.shift(); unit !== undefined; unit = queue.shift()) {
    const [program = '', ...first] = programs[unit.program] ?? [];
    const object = join(out, unit.object);
    const key = createHash('sha256')
      .update(JSON.stringify([program, first, unit.args, readFileSync(unit.source, 'utf8'), headerText]))
      .digest('hex');
    if (existsSync(object) && existsSync(`${object}.key`) && readFileSync(`${object}.key`, 'utf8') === key) continue;
    await run(program, [...first, ...unit.args, '-c', unit.source, '-o', object]);
    writeFileSync(`${object}.key`, key);
    numCompiled++;
  }
};
await Promise.all(Array.from({ length: availableParallelism() }, work));
if (numCompiled > 0 || !existsSync(join(out, 'test'))) {
  const [linker = '', ...first] = programs[mode === 'nvcc' ? 'nvcc' : 'compiler'] ?? [];
  const flags = mode === 'nvcc' ? ['-cudart', 'static'] : ['-pthread'];
  await run(linker, [...first, ...kernels, ...flags, ...units.map(({ object }) => join(out, object)), '-ldl', '-o', join(out, 'test')]);
}
console.log(join(out, 'test'));
