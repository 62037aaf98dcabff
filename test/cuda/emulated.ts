/** The CUDA backend and its operator tests, built for the emulated device where sources changed. */
import { execFile } from 'node:child_process';
import { existsSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { findCompiler } from '../../native/tools/compilers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

/** What a rank needs to compute on the emulated device. */
export async function emulatedBackend(): Promise<Record<string, string>> {
  const out = join(root, 'build', 'native-emulated');
  await run(process.execPath, [join(root, 'native', 'build-cuda.mjs'), '--out', out], { env: { ...process.env, NDS_CUDA: 'emulated' } });
  return { NDS_CUDA_LIBRARY: join(out, 'nds_cuda.so') };
}

/** A library that stands in for one of NVIDIA's on the emulated device: its path. */
export async function standIn(name: 'cublaslt'): Promise<string> {
  const out = join(root, 'build', 'native-emulated', `lib${name}_stand_in.so`);
  const source = join(root, 'test', 'cuda', 'stand_ins', `${name}.cc`);
  if (!existsSync(out) || statSync(out).mtimeMs < statSync(source).mtimeMs) {
    const [program = '', ...args] = findCompiler();
    await run(program, [...args, '-shared', '-fPIC', '-O2', '-std=c++20', '-Wall', source, '-o', `${out}.${process.pid}`]);
    renameSync(`${out}.${process.pid}`, out);
  }
  return out;
}

export type Variant = 'plain' | 'asan' | 'tsan';

/** Path of the program that tests operators. */
export async function operatorTests(variant: Variant): Promise<string> {
  const { stdout } = await run(process.execPath, [join(root, 'test', 'cuda', 'build.mjs'), variant]);
  return stdout.trim().split('\n').at(-1) as string;
}
