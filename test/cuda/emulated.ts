/** The CUDA backend and its operator tests, built for the emulated device where sources changed. */
import { execFile } from 'node:child_process';
import { existsSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { findCompiler } from '../../native/tools/compilers.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
const out = join(root, 'build', 'native-emulated');

/** What a rank needs to compute on the emulated device. */
export async function emulatedBackend(): Promise<Record<string, string>> {
  return { NDS_CUDA_LIBRARY: await buildBackend(out, {}) };
}

/** Path of the backend that clang and its standard library build. */
export function backendOfClang(): Promise<string> {
  return buildBackend(join(root, 'build', 'native-emulated-clang'), { CXX: 'clang++ -stdlib=libc++' });
}

async function buildBackend(folder: string, env: Record<string, string>): Promise<string> {
  const args = [join(root, 'native', 'build-cuda.mjs'), '--out', folder];
  await run(process.execPath, args, { env: { ...process.env, NDS_CUDA: 'emulated', ...env } });
  return join(folder, 'nds_cuda.so');
}

/** A library that stands in for one of NVIDIA's on the emulated device: its path. */
export async function standIn(name: 'cublaslt' | 'nccl'): Promise<string> {
  const library = join(out, `lib${name}_stand_in.so`);
  const source = join(root, 'test', 'cuda', 'stand_ins', `${name}.cc`);
  if (!existsSync(library) || statSync(library).mtimeMs < statSync(source).mtimeMs) {
    const [program = '', ...args] = findCompiler();
    await run(program, [...args, '-shared', '-fPIC', '-O2', '-std=c++20', '-Wall', source, '-o', `${library}.${process.pid}`]);
    renameSync(`${library}.${process.pid}`, library);
  }
  return library;
}

export type Variant = 'plain' | 'asan' | 'tsan';

/** Path of the program that tests operators, made of the backend's objects where its variant has the same. */
export async function operatorTests(variant: Variant): Promise<string> {
  await emulatedBackend();
  const base = join(out, 'objects-cuda-emulated');
  const { stdout } = await run(process.execPath, [join(root, 'test', 'cuda', 'build.mjs'), variant, '--base', base]);
  return stdout.trim().split('\n').at(-1) as string;
}
