/** Who may import whom: pure functions from a file's path and text to what it breaks. */
import { posix } from 'node:path';

/** @type {Record<string, string[]>} Folders that files of a folder may import from. */
const mayImport = {
  protocol: ['protocol'],
  launcher: ['launcher', 'protocol'],
  rank: ['rank', 'protocol'],
  bin: ['bin', 'dist', 'launcher', 'rank', 'protocol'],
  native: ['native'],
  scripts: ['scripts'],
  examples: [],
};

/** Plain functions and classes over numbers: no I/O, nothing native. Types may be imported from anywhere. */
const isPure = /^rank\/(?:scheduler|speculative|engine)\/|^rank\/kv\/(?!block-names)/;
const ioModules = /^(?:node:(?!assert)|zeromq$|execa$)/;

/** @type {Record<string, string[]>} Folders under native/ that C++ files of a folder may include from. */
const mayInclude = {
  core: ['core'],
  comm: ['comm', 'core'],
  cpu: ['cpu', 'comm', 'core'],
  simt: ['simt'],
  // device.h alone includes the emulated device.
  cuda: ['cuda', 'simt', 'comm', 'core'],
  addon: ['addon', 'comm', 'core', 'cpu'],
};

const importPattern = /^(?:import|export)\s+(type\s)?(?:[^'"`;]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm;

/**
 * What a TypeScript or JavaScript file breaks, one message each.
 * @param {string} file relative to the root
 * @param {string} text
 * @returns {string[]}
 */
export function checkModule(file, text) {
  const [folder = ''] = file.split('/');
  const allowed = mayImport[folder];
  if (allowed === undefined) return [];
  return [...text.matchAll(importPattern)].flatMap(([, type, from, dynamic]) => {
    const specifier = from ?? dynamic ?? '';
    const isType = type !== undefined;
    if (!specifier.startsWith('.')) {
      return isPure.test(file) && !isType && ioModules.test(specifier) ? [`${file}: does no I/O, but imports ${specifier}`] : [];
    }
    const target = posix.join(posix.dirname(file), specifier);
    if (isPure.test(file) && !isType && target === 'rank/native.ts') return [`${file}: knows nothing native, but imports ${target}`];
    if (file === 'rank/native.ts' && target === 'native/load.mjs') return [];
    if (!target.includes('/') || allowed.includes(target.split('/')[0] ?? '')) return [];
    return [`${file}: ${folder}/ imports only from ${allowed.join(', ') || 'packages'}, but imports ${target}`];
  });
}

/**
 * What a C++ file breaks, one message each.
 * @param {string} file relative to the root
 * @param {string} text
 * @returns {string[]}
 */
export function checkCpp(file, text) {
  const [root, folder = ''] = file.split('/');
  const allowed = root === 'native' ? mayInclude[folder] : undefined;
  if (allowed === undefined) return [];
  return [...text.matchAll(/^\s*#\s*include\s+[<"]([^>"]+)[>"]/gm)].flatMap(([, header = '']) => {
    const [target = ''] = header.split('/');
    if (/^(?:node_api|napi|js_native_api)/.test(header) && folder !== 'addon')
      return [`${file}: only native/addon knows Node, but includes ${header}`];
    if (/^(?:cuda|nccl|cublas)/.test(header) && folder !== 'cuda') return [`${file}: only native/cuda knows CUDA, but includes ${header}`];
    if (target in mayInclude && !allowed.includes(target)) {
      return [`${file}: native/${folder} includes only from ${allowed.join(', ')}, but includes ${header}`];
    }
    return [];
  });
}
