/** Compiles translation units, each again only when its command or the text that it includes has changed. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { posix } from 'node:path';
import { run } from './run.mjs';

/**
 * Sources of one translation unit, relative to `root`, and its object file. `program`: a compiler and its first arguments.
 * @typedef {{ sources: readonly string[], object: string, program: readonly string[], args: readonly string[] }} Unit
 */

/** nvcc reads flags from these variables by itself. */
const flagVariables = ['NVCC_PREPEND_FLAGS', 'NVCC_APPEND_FLAGS'];

/**
 * Sources and the project files that they include, transitively: the sources first, the others sorted by name.
 * @param {readonly string[]} sources
 * @param {(file: string) => string | null} read null = no such file
 * @param {readonly string[]} folders of headers, next to that of the including file
 */
export function includedFiles(sources, read, folders) {
  const found = new Set(sources);
  // Iterating a set also visits elements added meanwhile.
  for (const file of found) {
    for (const [, name = ''] of (read(file) ?? '').matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
      const header = [posix.dirname(file), ...folders].map((folder) => posix.join(folder, name)).find((path) => read(path) !== null);
      if (header !== undefined) found.add(header);
    }
  }
  return [...sources, ...[...found].slice(sources.length).sort()];
}

/**
 * What the object of a unit depends on, as a hash: the same for equal trees in other places.
 * @param {string} root absolute
 * @returns {(unit: Unit) => string}
 */
export function unitKeys(root) {
  /** @type {Map<string, string | null>} */
  const texts = new Map();
  const read = (/** @type {string} */ file) => {
    const text = texts.get(file) ?? (existsSync(`${root}/${file}`) ? readFileSync(`${root}/${file}`, 'utf8') : null);
    texts.set(file, text);
    return text;
  };
  const flags = flagVariables.map((name) => process.env[name] ?? '');
  return ({ sources, program, args }) => {
    const command = [...program, ...args].map((arg) => arg.replaceAll(root, '.'));
    const folders = args.flatMap((arg, i) => (args[i - 1] === '-I' ? [posix.relative(root, arg)] : []));
    const files = includedFiles(sources, read, folders).map((file) => [file, read(file)]);
    return createHash('sha256')
      .update(JSON.stringify([command, flags, files]))
      .digest('hex');
  };
}

/**
 * Compiles units into `out`, as many at a time as there are processors.
 *
 * @param {readonly Unit[]} units
 * @param {{ root: string, out: string, base?: string, onProgress?: (progress: string) => void }} options `base`: the folder of another
 *   build, whose objects serve where their keys are the same. `onProgress` hears `3/20` when the third of twenty units is ready.
 * @returns {Promise<{ objects: string[], output: string }>} paths in the order of units, and what the compilers printed
 * @throws an error of code `ERR_NATIVE` with a compiler's output.
 */
export async function compileUnits(units, { root, out, base = out, onProgress = () => {} }) {
  const keyOf = unitKeys(root);
  const queue = [...units.entries()];
  /** @type {string[]} */
  const objects = [];
  let output = '';
  let numReady = 0;
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [i, unit] = next;
      const key = keyOf(unit);
      const isBuilt = (/** @type {string} */ object) =>
        existsSync(object) && existsSync(`${object}.key`) && readFileSync(`${object}.key`, 'utf8') === key;
      const object = [base, out].map((folder) => `${folder}/${unit.object}`).find(isBuilt) ?? `${out}/${unit.object}`;
      objects[i] = object;
      if (!isBuilt(object)) {
        const [program = '', ...first] = unit.program;
        output += await run(program, [...first, ...unit.args, '-c', sourceOf(unit, root, object), '-o', object]);
        writeFileSync(`${object}.key`, key);
      }
      onProgress(`${++numReady}/${units.length}`);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  return { objects, output };
}

/**
 * The file to compile: the source, or one that includes all of several.
 * @param {Unit} unit
 * @param {string} root
 * @param {string} object
 */
function sourceOf({ sources }, root, object) {
  if (sources.length === 1) return `${root}/${sources[0]}`;
  writeFileSync(`${object}.cc`, sources.map((source) => `#include "${root}/${source}"\n`).join(''));
  return `${object}.cc`;
}
