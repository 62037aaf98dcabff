/**
 * Builds the tests of CUDA operators into `<out>/test`, when something changed, and prints its path:
 * `node test/cuda/build.mjs [plain|asan|tsan|nvcc] [--out DIR] [--base DIR] [--bench]`. All but nvcc run on the emulated device.
 * `--base`: objects of another build, which serve where they are the same.
 * `--bench`: `<out>/kernel_bench`, which times kernels, instead.
 * nvcc: what it says of registers and spills is in `<out>/ptxas.log`; NVCC names it, NDS_CUDA_ARCHS (80,90) its targets.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildTests } from './tests-build.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string' }, base: { type: 'string' }, bench: { type: 'boolean' } },
});
const [variant = 'plain'] = positionals;
const { out = join(root, 'build', 'cuda-tests', variant), base = out } = values;
console.log(await buildTests({ root, variant, out, base, program: values.bench ? 'kernel_bench' : 'test' }));
