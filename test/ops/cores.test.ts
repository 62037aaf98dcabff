/** Cores by other compilers, and the prebuilt one: the same bits of every operator and of every golden checkpoint, on each instruction set. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { addonFolder } from '../../native/load.mjs';
import { findCompiler, which } from '../../native/tools/compilers.mjs';
import { findPackageRoot, hashSources } from '../../native/tools/sources.mjs';
import { native } from '../../rank/native.ts';
import { fullOnly } from '../helpers/scale.ts';

const root = findPackageRoot();
const folder = t.testdir({});
const { isas } = native().cpuInfo();
/** Tests whose calls of operators are compared. */
const vectors = ['linear', 'attention', 'rows', 'rope', 'sample', 'process-logits', 'log-probabilities', 'lanes', 'accept'];
let numRuns = 0;

async function run(args: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  const { NODE_OPTIONS: _, NDS_TEST_FULL: __, ...outer } = process.env;
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, env: { ...outer, ...env }, maxBuffer: 2 ** 26 });
  return stdout;
}

/** Runs a script with `core` in the place of this checkout's; its calls of operators, and what it printed. */
async function runWith(core: string, script: string, isa: string): Promise<{ readonly calls: string[]; readonly lines: string[] }> {
  const calls = join(folder, `calls-${numRuns++}`);
  const args = ['-C', 'nds-source', '--import', 'tsx', '--import', './test/helpers/recorded-core.mjs', script];
  const stdout = await run(args, { NDS_TEST_CORE: core, NDS_TEST_CORE_CALLS: calls, NDS_ISA: isa });
  return { calls: readFileSync(calls, 'utf8').split('\n'), lines: stdout.split('\n') };
}

const own = join(addonFolder(root), 'nds.node');
const results = new Map<string, ReturnType<typeof runWith>>();
const ownResult = (script: string, isa: string): ReturnType<typeof runWith> => {
  const known = results.get(script + isa) ?? runWith(own, script, isa);
  results.set(script + isa, known);
  return known;
};

/** The number of lines, and the first that differs, of which a failure prints no thousand others. */
const comparison = (a: readonly string[], b: readonly string[]) => ({
  length: a.length,
  first: a.find((line, i) => line !== b[i]) ?? null,
});

async function compare(t: Test, core: string): Promise<void> {
  for (const name of vectors) {
    const [expected, { calls }] = await Promise.all([
      ownResult(`test/ops/${name}.test.ts`, ''),
      runWith(core, `test/ops/${name}.test.ts`, ''),
    ]);
    t.ok(calls.length > 300, `${name} calls operators`);
    t.same(comparison(calls, expected.calls), { length: expected.calls.length, first: null }, name);
  }
  const goldens = 'test/helpers/golden-logits.ts';
  for (const isa of isas) {
    const [expected, { lines }] = await Promise.all([ownResult(goldens, isa), runWith(core, goldens, isa)]);
    t.ok(lines.length > 40, `goldens on ${isa}`);
    t.same(comparison(lines, expected.lines), { length: expected.lines.length, first: null }, `goldens on ${isa}`);
  }
}

const objdump = process.platform === 'linux' ? which('objdump') : null;
t.test("the core exports Node's way in alone", { skip: objdump === null && 'there is no objdump for ELF' }, async (t) => {
  const { stdout } = await promisify(execFile)(objdump ?? '', ['-T', own]);
  const defined = stdout.split('\n').filter((line) => /^[0-9a-f]{8}/.test(line) && !line.includes('*UND*'));
  t.match(defined, [/ napi_register_module_v1$/]);
  t.equal(defined.length, 1);
});

const compiler = findCompiler()[0];
const other = ['clang++', 'g++'].find((name) => name !== compiler && which(name) !== null);
const skip = fullOnly.skip || (other === undefined && 'there is one compiler');

t.test(`a core by ${other} has the bits of that by ${compiler}`, { skip }, async (t) => {
  const out = join(root, 'build', `native-${other}`);
  await run(['native/build.mjs', '--out', out], { CXX: other ?? '', NDS_CUDA: 'off' });
  await compare(t, join(out, 'nds.node'));
});

const made = join(root, 'build', 'prebuilds', `${process.platform}-${process.arch}`);
const isMade = existsSync(join(made, 'sources')) && readFileSync(join(made, 'sources'), 'utf8') === hashSources(root);
const skipPrebuilt = fullOnly.skip || (!isMade && 'node scripts/prebuild.mjs makes it of these sources');

t.test('so has the prebuilt core', { skip: skipPrebuilt }, (t) => compare(t, join(made, 'nds.node')));
