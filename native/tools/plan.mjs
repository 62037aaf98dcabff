/** What a build without CMake compiles and links: pure functions from flags and file names to command lines. */
import { posix } from 'node:path';

/**
 * @typedef {{ name: string, number: number, flags: string[] }} Isa
 * @typedef {{ sources: string[], object: string, args: string[] }} CompileUnit sources of one translation unit
 */

/**
 * Reads flags.txt.
 * @param {string} text
 * @returns {{ common: string[], isas: Isa[] }}
 */
export function parseFlags(text) {
  const lines = text.split('\n').filter((line) => /^[a-z]/.test(line));
  const isas = lines.map((line) => {
    const [name = '', number, ...flags] = line.trim().split(/\s+/);
    return { name, number: number === '-' ? -1 : Number(number), flags };
  });
  return { common: isas.find(({ number }) => number === -1)?.flags ?? [], isas: isas.filter(({ number }) => number >= 0) };
}

/**
 * One unit per folder of baseline sources, most of whose compile time is their common headers; one per instruction set for each
 * `*.isa.cc`. CMakeLists.txt does the same.
 * @param {{ sources: string[], flagsText: string, arch: string, nativeDir: string, systemIncludes: string[] }} options
 *   `sources` relative to `nativeDir`; `arch` as `process.arch` has it.
 * @returns {CompileUnit[]}
 */
export function planUnits({ sources, flagsText, arch, nativeDir, systemIncludes }) {
  const { common, isas } = parseFlags(flagsText);
  const isX64 = arch === 'x64';
  const base = [...common, '-I', nativeDir, ...(isX64 ? [] : ['-DNDS_ONLY_PORTABLE'])];
  const napi = [
    '-DNAPI_VERSION=8',
    '-DNAPI_CPP_EXCEPTIONS',
    '-DNODE_GYP_MODULE_NAME=nds',
    ...systemIncludes.flatMap((dir) => ['-isystem', dir]),
  ];
  const isIsa = (/** @type {string} */ source) => source.endsWith('.isa.cc');
  const folders = [...new Set(sources.filter((source) => !isIsa(source)).map((source) => posix.dirname(source)))];
  const baseline = folders.map((folder) => ({
    sources: sources.filter((source) => !isIsa(source) && posix.dirname(source) === folder),
    object: `${folder.replaceAll('/', '.')}.o`,
    args: [...base, ...napi],
  }));
  const perIsa = sources.filter(isIsa).flatMap((source) =>
    isas
      .filter(({ number }) => number === 0 || isX64)
      .map(({ name, number, flags }) => ({
        sources: [source],
        object: `${source.replaceAll('/', '.').replace(/\.cc$/, '')}.${name}.o`,
        args: [...base, ...flags, `-DNDS_ISA=${number}`, `-DNDS_ISA_NAMESPACE=${name}`],
      })),
  );
  return [...baseline, ...perIsa];
}

/**
 * Arguments that link objects into an addon.
 * @param {{ objects: string[], output: string, platform: string, staticRuntime: boolean }} options `platform` as `process.platform` has it
 * @returns {string[]}
 */
export function linkArgs({ objects, output, platform, staticRuntime }) {
  const shared = platform === 'darwin' ? ['-bundle', '-undefined', 'dynamic_lookup'] : ['-shared', '-Wl,-z,now'];
  const runtime = staticRuntime ? ['-static-libstdc++', '-static-libgcc', '-Wl,--exclude-libs,ALL'] : [];
  return [...shared, '-pthread', ...runtime, '-o', output, ...objects];
}
