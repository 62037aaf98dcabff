/** NVIDIA's libraries that the CUDA backend opens at run time: paths and versions. */
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import { basename, delimiter, dirname, join } from 'node:path';
import type { Environment } from '../../protocol/rank-env.ts';
import type { CudaLibrary } from '../../rank/native.ts';
import { run } from './doctor-machine.ts';

export interface LibraryReport {
  readonly name: string;
  readonly path: string | null;
  readonly version: string | null;
  /** Why the CUDA backend could not open it; null where it did or was not asked. */
  readonly reason: string | null;
  /** What is unavailable without it. */
  readonly effect: string;
  /** How to install it. */
  readonly remedy: string;
}

interface Library {
  readonly name: string;
  /** File names, in order of preference. */
  readonly files: readonly string[];
  /** Environment variable with the path of the file or its folder, which is tried first. */
  readonly variable: string | null;
  readonly effect: string;
  readonly remedy: string;
}

const libraries: readonly Library[] = [
  { name: 'libcuda', files: ['libcuda.so.1'], variable: null, effect: 'no GPU can be used', remedy: "install NVIDIA's driver" },
  {
    name: 'libcublasLt',
    files: ['libcublasLt.so.13', 'libcublasLt.so.12'],
    variable: 'NDS_CUBLAS_PATH',
    effect: 'products of many rows use our own kernels',
    remedy: 'install the CUDA runtime, or pip install nvidia-cublas-cu12',
  },
  {
    name: 'libnccl',
    files: ['libnccl.so.2'],
    variable: 'NDS_NCCL_PATH',
    effect: 'GPUs exchange through the memory of the host',
    remedy: 'install NCCL, or pip install nvidia-nccl-cu12',
  },
];

/** Searches in the CUDA backend's order: the variable, the loader's path, /usr/local/cuda*, a Python environment. */
export function findLibraries(env: Environment): LibraryReport[] {
  const loaderCache = run('/sbin/ldconfig', ['-p']) ?? run('ldconfig', ['-p']) ?? '';
  const folders = [
    ...(env['LD_LIBRARY_PATH'] ?? '').split(delimiter).filter((folder) => folder !== ''),
    ...cudaFolders(),
    ...pythonFolders(env),
  ];
  return libraries.map(({ name, files, variable, effect, remedy }) => {
    const named = variable === null ? undefined : env[variable];
    const candidates = files.flatMap((file) => [
      ...(named === undefined ? [] : [named, join(named, file)]),
      ...cachedPaths(loaderCache, file),
      ...folders.map((folder) => join(folder, file)),
    ]);
    const path = candidates.find((candidate) => candidate.includes('.so') && existsSync(candidate)) ?? null;
    return { name, path, version: path === null ? null : versionOf(path), reason: null, effect, remedy };
  });
}

/** The CUDA backend's names of the libraries. */
const backendNames: Readonly<Record<string, string>> = { libcublasLt: 'cuBLASLt', libnccl: 'NCCL' };

/** Reports corrected by what the CUDA backend could open, since the loader decides. */
export function withOpened(reports: readonly LibraryReport[], opened: readonly CudaLibrary[]): LibraryReport[] {
  return reports.map((report) => {
    const own = opened.find(({ name }) => name === backendNames[report.name]);
    return own === undefined ? report : { ...report, path: own.path, version: own.version ?? report.version, reason: own.reason };
  });
}

/** Paths of a library in the output of `ldconfig -p`. */
export function cachedPaths(loaderCache: string, file: string): string[] {
  const lines = loaderCache.split('\n').map((line) => line.trim());
  return lines.filter((line) => line.startsWith(`${file} `)).flatMap((line) => line.split(' => ')[1] ?? []);
}

/** Version in the resolved file name (`libnccl.so.2.21.5`), or of the Python package that contains the file. */
function versionOf(path: string): string | null {
  const real = realpathSync(path);
  const inName = /\.so\.(\d+\.\d[\d.]*)$/.exec(basename(real))?.[1];
  if (inName !== undefined) return inName;
  // …/site-packages/nvidia/nccl/lib/libnccl.so.2 beside …/site-packages/nvidia_nccl_cu12-2.21.5.dist-info
  const [sitePackages, component] = [join(dirname(real), '..', '..', '..'), basename(join(dirname(real), '..'))];
  const info = entries(sitePackages).find((name) => name.startsWith(`nvidia_${component}`) && name.endsWith('.dist-info'));
  return /-([\d.]+)\.dist-info$/.exec(info ?? '')?.[1] ?? null;
}

function cudaFolders(): string[] {
  const versions = entries('/usr/local').filter((name) => name.startsWith('cuda'));
  return versions.map((name) => join('/usr/local', name, 'lib64'));
}

function pythonFolders(env: Environment): string[] {
  const roots = [env['VIRTUAL_ENV'], env['CONDA_PREFIX'], '/usr/local', '/usr'].filter((root) => root !== undefined);
  const sitePackages = roots.flatMap((root) =>
    entries(join(root, 'lib'))
      .filter((name) => name.startsWith('python3'))
      .flatMap((name) => [join(root, 'lib', name, 'site-packages'), join(root, 'lib', name, 'dist-packages')]),
  );
  return sitePackages.flatMap((folder) => entries(join(folder, 'nvidia')).map((name) => join(folder, 'nvidia', name, 'lib')));
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
