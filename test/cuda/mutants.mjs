/**
 * Breaks the CUDA kernels in known ways, one at a time, and demands that the tests on the emulated device notice:
 * `node test/cuda/mutants.mjs [part of a name] [--out DIR] [--variants plain,asan,tsan]`. The last line is
 * `N passed, N failed`. `--variants`: only these builds of the tests, and only the mutants that they are for.
 */
import { spawn } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { mutants } from './mutants-list.mjs';
import { buildTests } from './tests-build.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const { values, positionals } = parseArgs({ allowPositionals: true, options: { out: { type: 'string' }, variants: { type: 'string' } } });
const out = values.out ?? join(root, 'build', 'cuda-tests');
const [part = ''] = positionals;
const wanted = (values.variants ?? 'plain,asan,tsan').split(',');

const seeds = [0, 1, 5];
const maxRunMs = 180_000;
/** @type {Record<string, number>} */
const rounds = { plain: 3, asan: 2, tsan: 1 };
const findings = [
  /runtime error: .*/,
  /ERROR: AddressSanitizer: [A-Za-z-]+/,
  /WARNING: ThreadSanitizer: [a-z -]+/,
  /block \(\d.* thread .*/,
  /FAIL .*/,
  /block \(\d.*/,
];

/**
 * What a run of the tests reports first, or '' where they pass.
 * @param {string} binary
 * @param {string} variant
 * @param {number} seed
 * @param {string} test part of the names of the tests to run
 * @returns {Promise<string>}
 */
function runTests(binary, variant, seed, test) {
  const env = { ...process.env, SIMT_SEED: String(seed), ASAN_OPTIONS: 'detect_leaks=0', TSAN_OPTIONS: 'halt_on_error=1' };
  return new Promise((resolve, reject) => {
    const child = spawn(binary, [String(rounds[variant] ?? 1), test], { env, stdio: ['ignore', 'pipe', 'pipe'], timeout: maxRunMs });
    let output = '';
    const append = (/** @type {Buffer} */ chunk) => {
      output += chunk;
    };
    child.stdout.on('data', append);
    child.stderr.on('data', append);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(/^[1-9]\d* passed, 0 failed$/m.test(output) ? '' : `no test is named like '${test}'`);
      const found = findings.map((pattern) => pattern.exec(output)?.[0]).find((text) => text !== undefined);
      resolve(found ?? `ended with ${signal ?? code}`);
    });
  });
}

/**
 * Builds the tests of the kernels as they are, and expects them to pass.
 * @param {string} tree
 * @param {string} variant
 * @param {string} test
 * @returns the folder of the build
 */
async function soundBuild(tree, variant, test) {
  const key = `${variant} ${test}`;
  const folder = join(out, variant);
  const binary = builds.get(variant) ?? (await buildTests({ root: tree, variant, out: folder }));
  builds.set(variant, binary);
  const found = soundRuns.get(key) ?? (await runTests(binary, variant, 0, test));
  soundRuns.set(key, found);
  if (found !== '') throw new Error(`Expected the ${variant} tests '${test}' to pass without a mutant but they reported: ${found}`);
  return folder;
}
/** @type {Map<string, string>} */
const builds = new Map();
/** @type {Map<string, string>} */
const soundRuns = new Map();

/** @param {import('./mutants-list.mjs').Mutant} mutant */
function variantsOf(mutant) {
  return (mutant.variants ?? ['plain', 'asan', 'tsan']).filter((variant) => wanted.includes(variant));
}

/**
 * How a mutant is noticed, or '' where it is not.
 * @param {import('./mutants-list.mjs').Mutant} mutant
 * @param {string} tree a copy of the sources
 */
async function notice(mutant, tree) {
  const path = join(tree, 'native', 'cuda', 'kernels', mutant.file);
  const text = readFileSync(path, 'utf8');
  const pieces = text.split(mutant.from);
  if (pieces.length !== 2)
    throw new Error(`Expected the text of '${mutant.name}' once in ${mutant.file} but found it ${pieces.length - 1} times`);
  for (const variant of variantsOf(mutant)) {
    const base = await soundBuild(tree, variant, mutant.test);
    writeFileSync(path, pieces.join(mutant.to));
    const binary = await buildTests({ root: tree, variant, out: join(out, 'mutants', variant), base }).finally(() =>
      writeFileSync(path, text),
    );
    for (const seed of seeds) {
      const found = await runTests(binary, variant, seed, mutant.test);
      if (found !== '') return `${variant}, seed ${seed}: ${found.replaceAll(`${tree}/`, '').slice(0, 160)}`;
    }
  }
  return '';
}

const tree = join(out, 'mutants', 'tree');
rmSync(tree, { recursive: true, force: true });
cpSync(join(root, 'native'), join(tree, 'native'), { recursive: true });
cpSync(join(root, 'test', 'cuda'), join(tree, 'test', 'cuda'), { recursive: true });
let numPassed = 0;
let numFailed = 0;
for (const mutant of mutants.filter((one) => one.name.includes(part) && variantsOf(one).length > 0)) {
  /** @type {string} */
  let verdict;
  try {
    verdict = await notice(mutant, tree);
  } catch (error) {
    verdict = '';
    console.log(/** @type {Error} */ (error).message);
  }
  verdict === '' ? numFailed++ : numPassed++;
  console.log(`${verdict === '' ? 'NOT NOTICED' : 'noticed'}  ${mutant.name}${verdict === '' ? '' : ` (${verdict})`}`);
}
console.log(`${numPassed} passed, ${numFailed} failed`);
process.exitCode = numFailed === 0 && numPassed > 0 ? 0 : 1;
