/** Command lines of a build without CMake, as pure functions of flags and file names. */
import { posix } from 'node:path';

/**
 * @typedef {{ name: string, arch: string | null, number: number, flags: string[] }} Isa `arch` as in `process.arch`, null = every one
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
    const [name = '', arch = '', number, ...flags] = line.trim().split(/\s+/);
    return { name, arch: arch === '-' ? null : arch, number: number === '-' ? -1 : Number(number), flags };
  });
  return { common: isas.find(({ number }) => number === -1)?.flags ?? [], isas: isas.filter(({ number }) => number >= 0) };
}

/**
 * One unit per folder, since common headers take most of the compile time. `*.isa.cc` make one unit per instruction
 * set, with the two largest sources apart, so that cores share the work. CMakeLists.txt does the same.
 * @param {{ sources: string[], flagsText: string, arch: string, nativeDir: string, systemIncludes: string[] }} options
 *   `sources` relative to `nativeDir`; `arch` as in `process.arch`.
 * @returns {CompileUnit[]}
 */
export function planUnits({ sources, flagsText, arch, nativeDir, systemIncludes }) {
  const { common, isas } = parseFlags(flagsText);
  const offered = isas.filter((isa) => isa.arch === null || isa.arch === arch);
  const base = [...common, '-I', nativeDir, ...(offered.length > 1 ? [] : ['-DNDS_ONLY_PORTABLE'])];
  const napi = [
    '-DNAPI_VERSION=8',
    '-DNAPI_CPP_EXCEPTIONS',
    '-DNODE_GYP_MODULE_NAME=nds',
    ...systemIncludes.flatMap((dir) => ['-isystem', dir]),
  ];
  const baseline = unitsOf(sources.filter((source) => !isIsa(source))).map((unit) => ({ ...unit, args: [...base, ...napi] }));
  const perIsa = unitsOf(sources.filter(isIsa)).flatMap((unit) =>
    offered.map(({ name, number, flags }) => ({
      ...unit,
      object: unit.object.replace(/o$/, `${name}.o`),
      args: [...base, ...flags, `-DNDS_ISA=${number}`, `-DNDS_ISA_NAMESPACE=${name}`],
    })),
  );
  return [...baseline, ...perIsa];
}

const isIsa = (/** @type {string} */ source) => source.endsWith('.isa.cc');
const isLarge = (/** @type {string} */ source) => /\/(?:linear|attention)\.isa\.cc$|\.cu$/.test(source);

/**
 * One unit per folder; each large source is a unit of its own, such as a CUDA kernel's.
 * @param {string[]} sources
 */
export function unitsOf(sources) {
  const folders = [...new Set(sources.map((source) => posix.dirname(source)))];
  const groups = folders.map((folder) => sources.filter((source) => posix.dirname(source) === folder && !isLarge(source)));
  const units = [...groups.filter(({ length }) => length > 0), ...sources.filter(isLarge).map((source) => [source])];
  return units.map((group) => {
    const first = group[0] ?? '';
    const name = isLarge(first) ? first.replace(/\.isa\.cc$/, '') : posix.dirname(first);
    return { sources: group, object: `${name.replaceAll('/', '.')}.o` };
  });
}

/**
 * Arguments that link objects into an addon that exports Node's way in alone: else the loader would unite the symbols of a static
 * runtime with those of Node.
 * @param {{ objects: string[], output: string, platform: string, staticRuntime: boolean, nativeDir: string }} options `platform` as in
 *   `process.platform`
 * @returns {string[]}
 */
export function linkArgs({ objects, output, platform, staticRuntime, nativeDir }) {
  const exports = `${nativeDir}/addon/exports`;
  // Not -bundle, with which zig's linker crashes; Node loads either.
  const shared =
    platform === 'darwin'
      ? ['-dynamiclib', '-undefined', 'dynamic_lookup', `-Wl,-exported_symbols_list,${exports}.txt`]
      : ['-shared', '-Wl,-z,now', `-Wl,--version-script=${exports}.map`];
  const runtime = staticRuntime ? ['-static-libstdc++', '-static-libgcc'] : [];
  return [...shared, '-pthread', ...runtime, '-o', output, ...objects];
}
