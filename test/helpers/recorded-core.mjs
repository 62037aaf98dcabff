/**
 * Preloaded by a process that loads the core in NDS_TEST_CORE instead of its own; a hash of each operator's arguments and result goes to
 * the file in NDS_TEST_CORE_CALLS, a line each.
 */
import { createHash } from 'node:crypto';
import { openSync, writeSync } from 'node:fs';

const core = process.env['NDS_TEST_CORE'] ?? '';
const calls = openSync(process.env['NDS_TEST_CORE_CALLS'] ?? '', 'w');

/**
 * @param {import('node:crypto').Hash} hash
 * @param {unknown} value
 */
function update(hash, value) {
  if (ArrayBuffer.isView(value)) hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  else if (typeof value === 'object' && value !== null) for (const [name, part] of Object.entries(value)) update(hash.update(name), part);
  else hash.update(`${typeof value} ${Object.is(value, -0) ? '-0' : value};`);
}

/**
 * @param {string} name
 * @param {(...args: unknown[]) => unknown} operator
 */
function recorded(name, operator) {
  return (/** @type {unknown[]} */ ...args) => {
    /** @type {unknown} */
    let result;
    try {
      result = operator(...args);
      return result;
    } catch (error) {
      result = /** @type {Error} */ (error).message;
      throw error;
    } finally {
      // Arguments too: some operators write into them.
      const hash = createHash('sha256');
      update(hash, [args, result]);
      writeSync(calls, `${name} ${hash.digest('hex').slice(0, 32)}\n`);
    }
  };
}

const load = process.dlopen;
process.dlopen = (module, file, ...rest) => {
  if (!file.endsWith('nds.node')) return load.call(process, module, file, ...rest);
  load.call(process, module, core, ...rest);
  const { exports } = /** @type {{ exports: { testing: Record<string, (...args: unknown[]) => unknown> } }} */ (module);
  exports.testing = Object.fromEntries(Object.entries(exports.testing).map(([name, operator]) => [name, recorded(name, operator)]));
};
