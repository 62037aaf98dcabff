/** The build of the native core: flags, command lines, tools, the hash of the sources, the lock. */
import { spawn } from 'node:child_process';
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { addonFolder } from '../../../native/load.mjs';
import { BuildProgress, progressIn } from '../../../native/tools/build-progress.mjs';
import { findCmake, findCompiler, which } from '../../../native/tools/compilers.mjs';
import { withLock } from '../../../native/tools/lock.mjs';
import { linkArgs, parseFlags, planUnits } from '../../../native/tools/plan.mjs';
import { findPackageRoot, hashSources, listSources } from '../../../native/tools/sources.mjs';
import { checkoutCore, keepBuildSeconds, keepCore, lastBuildSeconds, takeCore } from '../../../native/tools/user-cache.mjs';

const root = findPackageRoot();
const flagsText = '# comment\ncommon - - -O3 -Wall\nportable - 0\navx2 x64 1 -mavx2 -mfma\nneon arm64 4\n';

t.test('flags.txt', async (t) => {
  t.test('has flags of every file and of each instruction set', async (t) => {
    t.same(parseFlags(flagsText), {
      common: ['-O3', '-Wall'],
      isas: [
        { name: 'portable', arch: null, number: 0, flags: [] },
        { name: 'avx2', arch: 'x64', number: 1, flags: ['-mavx2', '-mfma'] },
        { name: 'neon', arch: 'arm64', number: 4, flags: [] },
      ],
    });
  });

  t.test('keeps what makes one build exact and good everywhere', async (t) => {
    const { common, isas } = parseFlags(readFileSync(join(root, 'native', 'flags.txt'), 'utf8'));
    t.ok(common.includes('-ffp-contract=off'));
    t.same(
      isas.map(({ name, arch, number }) => [name, arch, number]),
      [
        ['portable', null, 0],
        ['avx2', 'x64', 1],
        ['avx512', 'x64', 2],
        ['avx512_bf16', 'x64', 3],
        ['avx512_vnni', 'x64', 6],
        ['avx_vnni', 'x64', 7],
        ['amx', 'x64', 8],
        ['neon', 'arm64', 4],
        ['neon_bf16', 'arm64', 5],
        ['neon_dot', 'arm64', 9],
      ],
    );
    t.same(isas[0]?.flags, []);
    const all = [...common, ...isas.flatMap(({ flags }) => flags)];
    t.notOk(all.some((flag) => /-march|-mtune|-mcpu=(?!generic\+)|fast-math|-Ofast/.test(flag)));
  });
});

t.test('planUnits', async (t) => {
  const options = { sources: ['core/program/arena.cc', 'cpu/kernels/linear.isa.cc'], flagsText, nativeDir: '/n', systemIncludes: ['/api'] };

  t.test('compiles kernels once per instruction set of the architecture, the small ones of a folder together', async (t) => {
    const small = ['cpu/kernels/add.isa.cc', 'cpu/kernels/rope.isa.cc'];
    const kernels = planUnits({ ...options, sources: [...small, ...options.sources], arch: 'x64' }).slice(1);
    t.same(
      kernels.map(({ object, sources }) => [object, sources.length]),
      [
        ['cpu.kernels.portable.o', 2],
        ['cpu.kernels.avx2.o', 2],
        ['cpu.kernels.linear.portable.o', 1],
        ['cpu.kernels.linear.avx2.o', 1],
      ],
    );
    const units = planUnits({ ...options, arch: 'x64' });
    t.same(
      units.map(({ object }) => object),
      ['core.program.o', 'cpu.kernels.linear.portable.o', 'cpu.kernels.linear.avx2.o'],
    );
    t.same(units[2]?.args, ['-O3', '-Wall', '-I', '/n', '-mavx2', '-mfma', '-DNDS_ISA=1', '-DNDS_ISA_NAMESPACE=avx2']);
    t.same(units[0]?.args.slice(-2), ['-isystem', '/api']);
    t.same(
      planUnits({ ...options, arch: 'arm64' }).map(({ object }) => object),
      ['core.program.o', 'cpu.kernels.linear.portable.o', 'cpu.kernels.linear.neon.o'],
    );
  });

  t.test('compiles only the portable one elsewhere, and says so to every file', async (t) => {
    const units = planUnits({ ...options, arch: 'riscv64' });
    t.same(
      units.map(({ object }) => object),
      ['core.program.o', 'cpu.kernels.linear.portable.o'],
    );
    for (const { args } of units) t.ok(args.includes('-DNDS_ONLY_PORTABLE'));
  });

  t.test('compiles the other sources of a folder as one unit', async (t) => {
    const sources = ['comm/shm.cc', 'core/memory.cc', 'core/plan/admission.cc', 'core/plan/plan_view.cc'];
    const units = planUnits({ ...options, sources, arch: 'x64' });
    t.same(
      units.map(({ object, sources }) => [object, sources]),
      [
        ['comm.o', ['comm/shm.cc']],
        ['core.o', ['core/memory.cc']],
        ['core.plan.o', ['core/plan/admission.cc', 'core/plan/plan_view.cc']],
      ],
    );
  });

  t.test('compiles every source of the project, into objects of different names', async (t) => {
    const { sources } = listSources(join(root, 'native'));
    const units = planUnits({ ...options, sources, arch: 'riscv64' });
    t.ok(sources.includes('addon/addon.cc'));
    t.same(units.flatMap((unit) => unit.sources).sort(), sources);
    t.equal(new Set(units.map(({ object }) => object)).size, units.length);
  });
});

t.test('linkArgs hides a static runtime, and leaves the symbols of Node open', async (t) => {
  const options = { objects: ['a.o', 'b.o'], output: 'nds.node', staticRuntime: false, nativeDir: '/n' };
  const isStatic = linkArgs({ ...options, platform: 'linux', staticRuntime: true });
  t.ok(isStatic.includes('-static-libstdc++') && isStatic.includes('-Wl,--version-script=/n/addon/exports.map'));
  t.notOk(linkArgs({ ...options, platform: 'linux' }).some((arg) => arg.startsWith('-static')));
  t.match(linkArgs({ ...options, platform: 'darwin' }), ['-dynamiclib', '-undefined', 'dynamic_lookup', /exports\.txt$/]);
  t.same(isStatic.slice(-4), ['-o', 'nds.node', 'a.o', 'b.o']);
});

/** A folder of executables that print `output`. */
function toolFolder(t: Test, tools: Record<string, string>): string {
  const scripts = Object.entries(tools).map(([name, output]) => [name, `#!/bin/sh\necho "${output}"\n`]);
  const dir = t.testdir(Object.fromEntries(scripts));
  for (const name of Object.keys(tools)) chmodSync(join(dir, name), 0o755);
  return dir;
}

t.test('tools', async (t) => {
  t.test('CXX comes first, with its arguments', async (t) => {
    const PATH = toolFolder(t, { 'my-c++': '', 'g++': '' });
    t.same(findCompiler({ PATH, CXX: ' my-c++  --target=x ' }), ['my-c++', '--target=x']);
    t.same(findCompiler({ PATH, CXX: `${PATH}/my-c++` }), [`${PATH}/my-c++`]);
  });

  t.test('else the first of g++, clang++ and c++', async (t) => {
    t.same(findCompiler({ PATH: toolFolder(t, { 'c++': '', 'clang++': '' }) }), ['clang++']);
  });

  t.test('a missing compiler is one line that says what to install', async (t) => {
    const PATH = t.testdir({ 'g++': 'not executable' });
    t.throws(() => findCompiler({ PATH }), { code: 'ERR_NATIVE', message: /^[^\n]*apt-get install g\+\+[^\n]*$/ });
    t.throws(() => findCompiler({ PATH, CXX: 'nope' }), { code: 'ERR_NATIVE', message: /CXX.*"nope"/ });
  });

  t.test('a folder is no program', async (t) => {
    t.equal(which('g++', { PATH: t.testdir({ 'g++': {} }) }), null);
  });

  t.test('CMake needs something that runs its files, and a version with MODULE link options', async (t) => {
    t.same(findCmake({ PATH: toolFolder(t, { cmake: '', ninja: '' }).concat(':/nowhere') }), null);
    const cases: [Record<string, string>, string | null][] = [
      [{ cmake: 'cmake version 3.25.1' }, null],
      [{ cmake: 'cmake version 3.9.6', make: '' }, null],
      [{ cmake: 'cmake version 3.18.0', make: '' }, 'Unix Makefiles'],
      [{ cmake: 'cmake version 4.0.2', make: '', ninja: '' }, 'Ninja'],
    ];
    for (const [tools, generator] of cases) {
      await t.test(JSON.stringify(tools), async (t) => {
        t.equal(findCmake({ PATH: toolFolder(t, tools) })?.generator ?? null, generator);
      });
    }
  });
});

t.test('the addon of a checkout lies in build/, that of an installed package in the cache of its user', async (t) => {
  t.equal(addonFolder(root), join(root, 'build', 'native'));
  const api = () => ({ 'package.json': '{}', include: {} });
  const addon = { 'exports.map': '', 'exports.txt': '' };
  const installed = t.testdir({
    'package.json': '{"name":"nano-dist-spec","version":"7.8.9"}',
    native: { 'flags.txt': '', 'CMakeLists.txt': '', 'build.mjs': '', tools: { 'plan.mjs': '' }, addon, core: { 'a.cc': 'int a;' } },
    node_modules: { 'node-addon-api': api(), 'node-api-headers': api() },
  });
  const start = (env: Record<string, string>) => addonFolder(installed, env).split('/7.8.9-')[0];
  t.equal(start({ NDS_CACHE_DIR: '/a', XDG_CACHE_HOME: '/b' }), '/a');
  t.equal(start({ XDG_CACHE_HOME: '/b' }), '/b/nano-dist-spec');
  t.match(start({}), /\/\.cache\/nano-dist-spec$/);

  t.test('by a hash that changes with a source, its name and the compiler', async (t) => {
    const hashes = [hashSources(installed), hashSources(installed, ['clang++'])];
    appendFileSync(join(installed, 'native', 'core', 'a.cc'), '\n');
    hashes.push(hashSources(installed));
    mkdirSync(join(installed, 'native', 'cpu'));
    writeFileSync(join(installed, 'native', 'cpu', 'b.h'), '');
    hashes.push(hashSources(installed));
    t.equal(new Set(hashes).size, hashes.length);
    t.equal(hashSources(installed), hashes.at(-1));
  });
});

t.test("the user's cache", async (t) => {
  t.test('keeps the newest cores of checkouts, and those that are taken', async (t) => {
    const env = { NDS_CACHE_DIR: t.testdir({ cache: {} }) };
    const built = join(t.testdir({ 'nds.node': 'a core' }), 'nds.node');
    const cores = Array.from({ length: 10 }, (_, i) => checkoutCore(`hash-${i}`, env));
    for (const [i, core] of cores.entries()) {
      keepCore(built, core);
      utimesSync(core, 1000 + i, 1000 + i);
      if (i === 4) t.ok(takeCore(cores[0] ?? '', `${built}-taken`), 'is as new as if it were built now');
    }
    t.equal(readFileSync(`${built}-taken`, 'utf8'), 'a core');
    t.same(
      cores.map((core) => existsSync(core)),
      [true, false, false, true, true, true, true, true, true, true],
    );
    t.notOk(takeCore(cores[1] ?? '', built));
  });

  t.test('knows how long the last build of each tool took', async (t) => {
    const env = { NDS_CACHE_DIR: join(t.testdir({}), 'new') };
    t.same(lastBuildSeconds(env), {});
    keepBuildSeconds('g++', 60, env);
    keepBuildSeconds('clang++', 50, env);
    keepBuildSeconds('g++', 40, env);
    t.same(lastBuildSeconds(env), { 'g++': 40, 'clang++': 50 });
  });
});

t.test('progress of a build', async (t) => {
  t.test('is the newest that Ninja or make wrote', async (t) => {
    t.equal(progressIn('[1/60] Building a.o\n[12/60] Building b.o\n'), '12/60');
    t.equal(progressIn('[  3%] Building a.o\n[ 50%] Built target nds\n'), '50 %');
    t.equal(progressIn('a.cc:1:2: error: x[3/4] y\n'), null);
  });

  t.test('is redrawn on a terminal, and a line now and then in a log', async (t) => {
    const shown = (isTTY: boolean) => {
      const texts: string[] = [];
      let now = 0;
      const progress = new BuildProgress({ isTTY, write: (text: string) => texts.push(text) }, () => now);
      for (const [ms, steps] of [
        [100, '1/9'],
        [9999, '2/9'],
        [10_000, '3/9'],
        [12_000, '4/9'],
      ] as const) {
        now = ms;
        progress.show(steps);
      }
      progress.end();
      progress.end();
      return texts;
    };
    t.same(shown(false), ['[3/9] 10 s\n']);
    const erase = '\r\u001b[K';
    t.same(shown(true), [`${erase}[1/9] 0 s`, `${erase}[2/9] 10 s`, `${erase}[3/9] 10 s`, `${erase}[4/9] 12 s`, erase]);
  });
});

t.test('lock', async (t) => {
  t.test('lets one in at a time and is gone afterwards', async (t) => {
    const path = join(t.testdir({}), 'lock');
    let numInside = 0;
    const work = () =>
      withLock(path, async () => {
        t.equal(++numInside, 1);
        await new Promise((resolve) => setImmediate(resolve));
        numInside--;
      });
    await Promise.all([work(), work(), work()]);
    t.notOk(existsSync(path));
    await t.rejects(
      withLock(path, () => Promise.reject(new Error('broken'))),
      { message: 'broken' },
    );
    t.notOk(existsSync(path));
  });

  t.test('is taken over from a process that is dead', async (t) => {
    const path = join(t.testdir({}), 'lock');
    const child = spawn(process.execPath, ['--input-type=module', '-e', childScript, path], { stdio: 'ignore' });
    await new Promise((resolve) => child.on('close', resolve));
    t.ok(existsSync(path), 'the child left its lock');
    t.equal(await withLock(path, async () => 'ours'), 'ours');
  });

  t.test('is taken over when it is older than any build', async (t) => {
    const path = join(t.testdir({ lock: JSON.stringify({ pid: process.pid, host: 'elsewhere' }) }), 'lock');
    utimesSync(path, 0, 0);
    t.equal(await withLock(path, async () => 'ours'), 'ours');
  });
});

/** Takes the lock named on its command line and dies without releasing it. */
const childScript = `
import { withLock } from ${JSON.stringify(new URL('../../../native/tools/lock.mjs', import.meta.url).href)};
await withLock(process.argv[1], async () => process.kill(process.pid, 'SIGKILL'));
`;
