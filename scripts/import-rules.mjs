/** The import rules: pure functions from a file's path and text to its violations. */
import { posix } from 'node:path';

/** @type {Record<string, string[]>} Folders that files of a folder may import from. */
const mayImport = {
  protocol: ['protocol'],
  launcher: ['launcher', 'protocol'],
  rank: ['rank', 'protocol'],
  bin: ['bin', 'dist', 'launcher', 'rank', 'protocol'],
  native: ['native'],
  scripts: ['scripts', 'native'],
  examples: [],
};

/**
 * Rooms of rank/, and the rooms below each: imports, of types too, run downward only. A file outside all rooms is its
 * own room: `index`, `llm`, `open-model` and the small files beside them.
 * @type {Record<string, string[]>}
 */
const rooms = {
  'program-spec': [],
  native: ['program-spec'],
  'cuda-devices': ['native'],
  'free-memory': [],
  'load-progress': [],
  hub: ['load-progress'],
  boot: ['native'],
  thread: [],
  text: ['thread'],
  observe: ['program-spec'],
  kv: [],
  scheduler: ['kv'],
  speculative: ['scheduler', 'kv'],
  engine: ['speculative', 'scheduler', 'kv', 'observe'],
  model: ['engine', 'speculative', 'scheduler', 'kv', 'text', 'thread', 'program-spec', 'native'],
  'shard-cache': ['model', 'program-spec', 'native'],
  gang: ['hub', 'shard-cache', 'model', 'engine', 'program-spec', 'native', 'observe', 'cuda-devices', 'free-memory'],
  chat: ['text', 'thread'],
  request: ['model', 'engine', 'speculative', 'scheduler', 'text'],
  options: ['load-progress', 'gang', 'speculative', 'scheduler', 'kv'],
  'kv-blocks': ['options', 'kv'],
  'open-share': [],
  'llm-tokenizer': ['request', 'chat', 'text'],
  'load-needs': ['kv-blocks', 'options', 'model', 'kv'],
  'open-model': [
    'open-share',
    'hub',
    'options',
    'kv-blocks',
    'load-needs',
    'load-progress',
    'gang',
    'request',
    'chat',
    'model',
    'engine',
    'kv',
    'text',
    'observe',
    'native',
    'cuda-devices',
  ],
  llm: ['open-model', 'open-share', 'llm-tokenizer', 'options', 'gang', 'request', 'chat', 'engine', 'observe'],
  index: [
    'load-progress',
    'llm',
    'llm-tokenizer',
    'open-model',
    'options',
    'request',
    'chat',
    'text',
    'engine',
    'speculative',
    'scheduler',
  ],
};
/** Rooms without I/O; hashing is allowed, as block names are hashes. */
const pureRooms = ['kv', 'scheduler', 'speculative', 'engine'];
const ioModules = /^(?:node:(?!assert|crypto)|zeromq$|execa$)/;

/** @type {Record<string, string[]>} Folders under native/ that C++ files of a folder may include from. */
const mayInclude = {
  core: ['core'],
  comm: ['comm', 'core'],
  step: ['step', 'comm', 'core'],
  cpu: ['cpu', 'step', 'comm', 'core'],
  simt: ['simt'],
  // device.h alone includes the emulated device.
  cuda: ['cuda', 'simt', 'step', 'comm', 'core'],
  addon: ['addon', 'cpu', 'step', 'comm', 'core'],
};

const importPattern = /^(?:import|export)\s+(type\s)?(?:[^'"`;]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm;

/** The room of a file in rank/. @param {string} file */
function roomOf(file) {
  const [, first = ''] = file.split('/');
  return first.replace(/\.ts$/, '');
}

/**
 * Violations of a TypeScript or JavaScript file, one message each.
 * @param {string} file relative to the root
 * @param {string} text
 * @returns {string[]}
 */
export function checkModule(file, text) {
  const [folder = ''] = file.split('/');
  const allowed = mayImport[folder];
  if (allowed === undefined) return [];
  const room = folder === 'rank' ? roomOf(file) : '';
  if (folder === 'rank' && !(room in rooms)) return [`${file}: rank/ has no room ${room}`];
  return [...text.matchAll(importPattern)].flatMap(([, type, from, dynamic]) => {
    const specifier = from ?? dynamic ?? '';
    if (!specifier.startsWith('.')) {
      const doesIo = type === undefined && ioModules.test(specifier);
      return pureRooms.includes(room) && doesIo ? [`${file}: does no I/O, but imports ${specifier}`] : [];
    }
    const target = posix.join(posix.dirname(file), specifier);
    if (file === 'rank/native.ts' && target === 'native/load.mjs') return [];
    const targetFolder = target.split('/')[0] ?? '';
    if (target.includes('/') && !allowed.includes(targetFolder))
      return [`${file}: ${folder}/ imports only from ${allowed.join(', ') || 'packages'}, but imports ${target}`];
    if (folder !== 'rank' || targetFolder !== 'rank') return [];
    const below = rooms[room] ?? [];
    if (roomOf(target) === room || below.includes(roomOf(target))) return [];
    return [`${file}: ${room} imports only from ${below.join(', ') || 'no other room'}, but imports ${target}`];
  });
}

/**
 * Violations of a C++ file, one message each.
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
