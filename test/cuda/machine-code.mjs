/**
 * Checks the machine code of nds_cuda.so for what the sources only ask for: kernels that may overlap the launch before
 * them touch memory after their wait alone, weights that are to be loaded earlier are, and hot kernels do not spill.
 * `node test/cuda/machine-code.mjs [LIBRARY]`; the last line is `N kernels passed, N failed`, or why there is no check.
 */
import { execFile } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { addonFolder } from '../../native/load.mjs';
import { which } from '../../native/tools/compilers.mjs';
import { findNvcc } from '../../native/tools/cuda.mjs';
import { readCudaBuild } from '../../native/tools/cuda-record.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/**
 * The kernels of a pass, by file and name, which call `wait_for_previous()`. `earlyLoads`: loads by `ld_early_16`, all before the wait.
 * `usesStack`: has arrays in local memory by design.
 * @typedef {{ earlyLoads?: number, usesStack?: boolean }} Expected
 * @type {Record<string, Expected>}
 */
const kernels = {
  'rows/embedding_kernel': {},
  'rows/rms_norm_kernel': {},
  'rows/gather_rows_kernel': {},
  'rows/silu_mul_kernel': {},
  'rows/add_kernel': {},
  'rows/join_kernel': { usesStack: true },
  'one_shot/one_shot_kernel': { usesStack: true },
  'rope/rope_table_kernel': {},
  'rope/rope_and_store_kernel': {},
  'sample_rows/sample_kernel': {},
  'sample_rows/join_kernel': {},
  'sample_rows/choose_kernel': {},
  'step/commit_kernel': {},
  'linear_few/few_kernel': { earlyLoads: 16 },
  'linear_tiled/tiled_kernel': {},
  'linear_plain/plain_kernel': { usesStack: true },
  'attention/plan_attention_kernel': {},
  'attention_split/split_attention_kernel': {},
  'attention_prefill/prefill_attention_kernel': {},
  'attention_plain/plain_attention_kernel': {},
};

/**
 * @typedef {{ address: number, name: string, operands: string }} Instruction `name` with its modifiers, e.g. `LDG.E.128`
 * @typedef {{ kernel: string, symbol: string, instructions: Instruction[] }} Code
 */

/**
 * `file/name` of a kernel, which its symbol holds: `…_13_linear_few_cu_82238f31` and `10few_kernel…`.
 * @param {string} symbol
 */
function kernelOf(symbol) {
  const [, file, name] = /_\d+_([a-z_]+)_cu_.*?\d([a-z][a-z_]*_kernel)/.exec(symbol) ?? [];
  return name === undefined ? symbol : `${file}/${name}`;
}

/**
 * The functions of a listing by `cuobjdump -sass`.
 * @param {string} text
 */
export function parseSass(text) {
  /** @type {Code[]} */
  const functions = [];
  for (const line of text.split('\n')) {
    const symbol = /^\s*Function : (\S+)/.exec(line)?.[1];
    if (symbol !== undefined) functions.push({ kernel: kernelOf(symbol), symbol, instructions: [] });
    const found = /^\s*\/\*([0-9a-f]{4,})\*\/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);/.exec(line);
    if (found === null) continue;
    const [, address = '', name = '', operands = ''] = found;
    functions.at(-1)?.instructions.push({ address: Number.parseInt(address, 16), name, operands: operands.trim() });
  }
  return functions;
}

const isWait = (/** @type {Instruction} */ { name }) => name === 'ACQBULK'; // griddepcontrol.wait
const isTrigger = (/** @type {Instruction} */ { name }) => name === 'PREEXIT'; // griddepcontrol.launch_dependents
const isEarlyLoad = (/** @type {Instruction} */ { name }) => /^LDG\..*STRONG\.GPU/.test(name);
const touchesMemory = (/** @type {Instruction} */ { name }) => /^(?:LDG|LDGSTS|LD|STG|ST|ATOMG|ATOM|REDG|RED|UBLKCP)(?:\.|$)/.test(name);
const isLocal = (/** @type {Instruction} */ { name }) => /^(?:LDL|STL)(?:\.|$)/.test(name);

/**
 * What is wrong with the code of a kernel of a pass; empty if nothing is.
 * @param {readonly Instruction[]} instructions
 * @param {Expected} expected
 */
export function checkKernel(instructions, { earlyLoads = 0, usesStack = false } = {}) {
  const wait = instructions.findIndex(isWait);
  if (wait < 0) return ['does not wait for the launch before (ACQBULK)'];
  const before = instructions.slice(0, wait);
  const after = instructions.slice(wait + 1);
  const waitAddress = instructions[wait]?.address ?? 0;
  const target = (/** @type {Instruction} */ { operands }) => Number.parseInt(/0x([0-9a-f]+)$/.exec(operands)?.[1] ?? '0', 16);
  const isWayRound = (/** @type {Instruction} */ one) =>
    /^(?:EXIT|RET|CALL|BRX|JMP|JMX)/.test(one.name) || (/^BRA/.test(one.name) && target(one) > waitAddress);
  /** @type {string[]} */
  const faults = [];
  /** @type {(text: string, found: Instruction[]) => void} */
  const expectNone = (text, found) => {
    for (const one of found.slice(0, 1)) faults.push(`${text}: ${one.name} ${one.operands} at 0x${one.address.toString(16)}`);
  };
  expectNone('has a way round its wait', before.filter(isWayRound));
  expectNone('lets the next launch start before its wait', before.filter(isTrigger));
  expectNone(
    'touches memory before its wait',
    before.filter((one) => touchesMemory(one) && !(earlyLoads > 0 && isEarlyLoad(one))),
  );
  expectNone('has an early load behind its wait', earlyLoads > 0 ? after.filter(isEarlyLoad) : []);
  const numEarly = before.filter(isEarlyLoad).length;
  if (earlyLoads > 0 && numEarly !== earlyLoads) faults.push(`has ${numEarly} loads before its wait where ${earlyLoads} are written`);
  if (!after.some(touchesMemory)) faults.push('touches no memory behind its wait');
  expectNone('spills registers', usesStack ? [] : instructions.filter(isLocal));
  return faults;
}

/**
 * What is wrong with each kernel of a pass, by its symbol; a kernel that is missing has its name.
 * @param {string} text listing of one architecture
 */
export function checkSass(text) {
  const functions = parseSass(text).filter(({ kernel }) => Object.hasOwn(kernels, kernel));
  const found = new Set(functions.map(({ kernel }) => kernel));
  const missing = Object.keys(kernels).filter((kernel) => !found.has(kernel));
  return [
    ...functions.map((code) => ({ symbol: code.symbol, faults: checkKernel(code.instructions, kernels[code.kernel]) })),
    ...missing.map((symbol) => ({ symbol, faults: ['is not there'] })),
  ];
}

/**
 * @param {string} library built by nvcc
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<{ skipped: string } | { results: ReturnType<typeof checkSass> }>}
 */
export async function checkLibrary(library, env = process.env) {
  if (!existsSync(library)) return { skipped: `there is no ${library}` };
  const build = readCudaBuild(dirname(library));
  if (build?.mode !== 'nvcc') return { skipped: `${library} was not built by nvcc` };
  if (!build.archs.includes('90')) return { skipped: `${library} has no code for sm_90` };
  const nvcc = findNvcc(env);
  const cuobjdump = which('cuobjdump', env) ?? (nvcc === null ? null : which(join(dirname(realpathSync(nvcc)), 'cuobjdump'), env));
  if (cuobjdump === null) return { skipped: 'there is no cuobjdump on PATH or beside nvcc' };
  const path = [dirname(cuobjdump), env['PATH']].join(delimiter); // of nvdisasm, which it calls
  const options = { env: { ...env, PATH: path }, maxBuffer: 2 ** 30 };
  const { stdout } = await promisify(execFile)(cuobjdump, ['-sass', '-arch', 'sm_90', library], options);
  return { results: checkSass(stdout) };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const outcome = await checkLibrary(process.argv[2] ?? join(addonFolder(root), 'nds_cuda.so'));
  if ('skipped' in outcome) {
    console.log(`Skipped the check of machine code: ${outcome.skipped}`);
  } else {
    const failed = outcome.results.filter(({ faults }) => faults.length > 0);
    for (const { symbol, faults } of failed) console.log(`${symbol} ${faults.join('; ')}`);
    console.log(`${outcome.results.length - failed.length} kernels passed, ${failed.length} failed`);
    process.exitCode = failed.length === 0 ? 0 : 1;
  }
}
