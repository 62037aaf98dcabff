/** The build of nds_cuda.so: method, files, command lines. */
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { includedFiles } from '../../../native/tools/compile.mjs';
import {
  findCudaMode,
  findNvcc,
  isCudaSource,
  linkCudaArgs,
  nvccCommand,
  nvccLibraryFolder,
  planCudaUnits,
} from '../../../native/tools/cuda.mjs';
import { readCudaBuild, writeCudaBuild } from '../../../native/tools/cuda-record.mjs';
import { findPackageRoot } from '../../../native/tools/sources.mjs';

const nativeDir = join(findPackageRoot(), 'native');
const sources = [
  'core/program/arena.cc',
  'cpu/isa.cc',
  'addon/addon.cc',
  'cuda/entry.cc',
  'cuda/kernels/rows.cu',
  'cuda/check.h',
  'simt/fiber.cc',
];
const options = { sources, common: ['-O3'], nativeDir: '/n', arch: 'x64' };

t.test('NDS_CUDA says how; without it nvcc decides', async (t) => {
  const PATH = t.testdir({ nvcc: '#!/bin/sh\n', 'g++': '#!/bin/sh\n', 'g++-12': '#!/bin/sh\n' });
  for (const name of ['nvcc', 'g++', 'g++-12']) chmodSync(join(PATH, name), 0o755);
  t.equal(findCudaMode({ PATH }), 'nvcc');
  t.equal(findCudaMode({ PATH, NDS_CUDA: 'off' }), 'off');
  t.equal(findCudaMode({ PATH, NDS_CUDA: 'emulated' }), 'emulated');
  t.throws(() => findCudaMode({ PATH, NDS_CUDA: 'yes' }), { code: 'ERR_NATIVE', message: /nvcc, emulated or off .* 'yes'/ });
  t.throws(() => findNvcc({ PATH, NVCC: '/nowhere/nvcc' }), { code: 'ERR_NATIVE', message: /"\/nowhere\/nvcc"/ });
  t.same(nvccCommand({ PATH }), [join(PATH, 'nvcc')]);
  t.same(nvccCommand({ PATH, CXX: 'g++-12' }), [join(PATH, 'nvcc'), '-ccbin', 'g++-12'], 'for the host, the compiler that CXX names');
});

t.test('nvcc compiles what is under cuda/, the C++ compiler the rest', async (t) => {
  const units = planCudaUnits({ ...options, mode: 'nvcc', archs: ['80', '90'] });
  t.same(
    units.map(({ sources, program }) => [sources, program]),
    [
      [['core/program/arena.cc'], 'compiler'],
      [['cuda/entry.cc'], 'nvcc'],
      [['cuda/kernels/rows.cu'], 'nvcc'],
    ],
  );
  const args = units[2]?.args.join(' ') ?? '';
  for (const code of ['code=sm_80', 'code=sm_90', 'arch=compute_90,code=compute_90']) t.ok(args.includes(code), code);
  t.notOk(args.includes('code=compute_80'), 'PTX of the newest only');
  t.notMatch(units[0]?.args.join(' '), /NDS_EMULATED|-mfma/);
});

t.test('the C++ compiler compiles all of it for the emulated device', async (t) => {
  const units = planCudaUnits({ ...options, mode: 'emulated' });
  t.ok(units.every(({ program }) => program === 'compiler'));
  t.same(
    units.filter(({ args }) => args.includes('-DNDS_EMULATED')).flatMap((unit) => unit.sources),
    ['cuda/entry.cc', 'cuda/kernels/rows.cu'],
  );
  t.ok(units.some((unit) => unit.sources.includes('simt/fiber.cc')));
  const byClang = planCudaUnits({ ...options, mode: 'emulated', isClang: true }).flatMap(({ args }) => args);
  t.ok(byClang.includes('-fno-builtin-memset') && !byClang.includes('-fno-tree-loop-distribute-patterns'), 'flags that clang knows');
  const elsewhere = planCudaUnits({ ...options, mode: 'emulated', arch: 'arm64' });
  t.notOk(elsewhere.some(({ args }) => args.includes('-mfma')));
});

t.test('every unit of the project has an object of its own', async (t) => {
  const files = readdirSync(nativeDir, { recursive: true, encoding: 'utf8' });
  const units = planCudaUnits({ ...options, sources: files, mode: 'emulated' });
  t.equal(new Set(units.map(({ object }) => object)).size, units.length);
  t.ok(units.some((unit) => unit.sources.includes('cuda/entry.cc')));
  t.notOk(files.some((file) => isCudaSource(file, 'emulated') && file.startsWith('addon/')));
});

t.test('linking', async (t) => {
  const link = { objects: ['a.o'], output: 'nds_cuda.so', exports: '/n/exports.map', staticRuntime: true };
  const emulated = linkCudaArgs({ ...link, mode: 'emulated' });
  t.ok(emulated.includes('-shared') && emulated.includes('-Wl,--version-script=/n/exports.map'));
  const nvcc = linkCudaArgs({ ...link, mode: 'nvcc', libraryFolder: '/cu/lib' });
  t.match(nvcc.join(' '), /-cudart static -L \/cu\/lib .*-Xlinker --version-script=\/n\/exports.map/);
  t.notOk(
    nvcc.some((arg) => arg.startsWith('-Wl,')),
    'nvcc takes linker flags in its own way',
  );
  const toolkit = t.testdir({ bin: { nvcc: '' }, lib: { 'libcudart_static.a': '' }, other: { bin: { nvcc: '' } } });
  t.equal(nvccLibraryFolder(join(toolkit, 'bin', 'nvcc')), join(toolkit, 'lib'));
  t.equal(nvccLibraryFolder(join(toolkit, 'other', 'bin', 'nvcc')), null);
});

t.test('a source is compiled again when a file that it includes has changed', async (t) => {
  const texts: Record<string, string> = {
    'a.cu': '#include <vector>\n#include "b.h"\n  #  include "gone.h"\n',
    'b.h': '#include "d.h"\n#include "c.h"\n',
    'c.h': '#include "b.h"\n',
    'd.h': '// #include "e.h"\n',
    'e.h': '',
  };
  const read = (file: string) => texts[file] ?? null;
  t.same(includedFiles(['a.cu'], read, ['.']), ['a.cu', 'b.h', 'c.h', 'd.h']);
});

t.test('the record of a build', async (t) => {
  const folder = t.testdir({});
  t.equal(readCudaBuild(folder), null);
  const build = { mode: 'nvcc' as const, compiler: 'nvcc', archs: ['90'], stamp: 'x', failure: null };
  writeCudaBuild(folder, build);
  t.same(readCudaBuild(folder), build);
  mkdirSync(join(folder, 'torn'));
  writeFileSync(join(folder, 'torn', 'cuda-build.json'), '{"mode"');
  t.equal(readCudaBuild(join(folder, 'torn')), null);
});
