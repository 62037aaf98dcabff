/** The doctor's verdict: which models fit, their bound, and what would help. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findModels, type ModelNeeds, needsOf } from '../../../bin/commands/doctor-models.ts';
import { judge, verdictLines } from '../../../bin/commands/doctor-verdict.ts';

const shipped = fileURLToPath(new URL('../../../examples/models', import.meta.url));
const gibibyte = 2 ** 30;

const model = (name: string, weightBytes: number): ModelNeeds => ({
  name,
  folder: `/${name}`,
  weightBytes,
  readBytes: weightBytes,
  neededBytes: weightBytes + gibibyte / 4,
  refused: null,
});

const cuda = { path: '', build: null, info: null, reason: 'never built' };
const findings: Parameters<typeof judge>[0] = {
  versions: { package: '1', node: 'v20', npm: null, system: '' },
  cpu: { cores: 2, allowedCores: 2, model: '', isas: ['avx2'], isa: 'avx2', error: null },
  memory: { totalBytes: 16 * gibibyte, freeBytes: 9 * gibibyte, availableBytes: 8 * gibibyte, limitBytes: null, shmBytes: 1 },
  gpus: [],
  cuda,
  libraries: [],
  tools: { compiler: 'g++', cmake: null, nvcc: null },
  speed: { readBytesPerSecond: 20e9, flopsPerSecond: 400e9 },
  models: [
    model('small', 10 * 2 ** 20),
    model('middle', 2e9),
    model('edge', 7.75 * gibibyte),
    model('large', 15 * gibibyte),
    model('larger', 30 * gibibyte),
    { ...model('odd', 0), refused: 'Expected another architecture' },
  ],
  missing: [{ what: 'CMake', effect: 'the compiler is called directly', remedy: 'optional', isFatal: false }],
};

t.test('on the processor', (t) => {
  const verdict = judge(findings);
  t.equal(verdict.device, 'cpu');
  t.same(
    verdict.models.map(({ name, fits, tokensPerSecondLimit }) => [name, fits, tokensPerSecondLimit]),
    [
      ['small', true, null],
      ['middle', true, 10],
      ['edge', true, 20e9 / (7.75 * gibibyte)],
      ['large', false, 20e9 / (15 * gibibyte)],
      ['larger', false, 20e9 / (30 * gibibyte)],
      ['odd', false, null],
    ],
  );
  t.match(verdict.improvements, [/^CMake: without it/, /^7\.3 GiB more free memory: large would fit$/, /AVX-512: vectors of twice/]);
  const text = verdictLines(verdict, findings).join('\n');
  t.match(text, 'Now, memory is read at 20 GB/s, arithmetic runs at 400 GFLOP/s.');
  t.match(text, /^ {2}middle +1\.9 GiB of weights, fits, at most 10 tokens\/s at batch 1/m);
  t.match(text, /^ {2}large +15\.0 GiB of weights, does not fit: needs 15\.3 GiB$/m);
  t.match(text, /^Not supported:\n {2}odd +Expected another architecture$/m);
  t.match(text, /^Verdict: .* at most 8\.0 GiB run here, on 2 cores with avx2\.$/m);
  t.match(text, /Next: ndsrun generate edge "/);
  t.end();
});

t.test('on devices, whose memory counts and whose speed is not measured', (t) => {
  const device = { name: 'H100', pciBusId: '', computeCapability: '9.0', numMultiprocessors: 132, totalBytes: 20 * gibibyte };
  const info = {
    path: '',
    reason: null,
    isEmulated: false,
    driverVersion: '',
    runtimeVersion: '',
    devices: [
      { ...device, freeBytes: 16 * gibibyte },
      { ...device, freeBytes: null },
    ],
    libraries: [],
  };
  const verdict = judge({ ...findings, cuda: { ...cuda, info, reason: null } });
  t.match(verdict, { device: 'cuda', availableBytes: 36 * gibibyte });
  t.ok(verdict.models.every(({ tokensPerSecondLimit }) => tokensPerSecondLimit === null));
  const emulated = judge({ ...findings, cuda: { ...cuda, info: { ...info, isEmulated: true }, reason: null } });
  t.equal(emulated.device, 'cpu', 'the emulated device is for tests');
  t.end();
});

t.test('without a core', (t) => {
  const cpu = { ...findings.cpu, isas: [], isa: null, error: 'Expected a compiler' };
  const broken = { ...findings, cpu, speed: null, models: [] };
  const text = verdictLines(judge(broken), broken).join('\n');
  t.match(text, /Verdict: nothing can be computed here yet\.\nIt needs\n {2}CMake/);
  t.notMatch(text, 'Next');
  t.end();
});

t.test('models of the package and of the cache', (t) => {
  const cache = t.testdir({
    'models--org--a--b': { refs: { main: 'abc\n' }, snapshots: {} },
    'models--org--half': { refs: { main: 'abc' }, snapshots: { abc: {} } },
    'models--org--odd': { refs: { main: 'abc' }, snapshots: { abc: { 'config.json': '{"architectures":["BertModel"]}' } } },
    'datasets--org--d': { refs: { main: 'abc' }, snapshots: { abc: { 'config.json': '{}' } } },
    'version.txt': '1',
  });
  symlinkSync(join(shipped, 'story-5m'), join(cache, 'models--org--a--b', 'snapshots', 'abc'));
  const found = findModels({ HF_HUB_CACHE: cache });
  t.same(
    found.map(({ name }) => name),
    ['nds:story-180k', 'nds:story-5m', 'org/a--b', 'org/odd'],
  );
  const needs = found.map(needsOf);
  t.match(needs[3]?.refused, /BertModel/);
  // 10,500,480 bytes of file: the embedding is the LM head too, and packed once more for it.
  t.match(needs[1], { refused: null, weightBytes: Number });
  t.ok((needs[1]?.readBytes ?? 0) < 10.5e6 && (needs[1]?.readBytes ?? 0) > 9e6, String(needs[1]?.readBytes));
  t.end();
});

t.test('where Python keeps its cache', (t) => {
  const home = t.testdir({});
  const place = (...path: string[]) => {
    const folder = join(home, ...path, 'hub', 'models--org--m');
    mkdirSync(join(folder, 'refs'), { recursive: true });
    mkdirSync(join(folder, 'snapshots', 'abc'), { recursive: true });
    writeFileSync(join(folder, 'refs', 'main'), 'abc');
    writeFileSync(join(folder, 'snapshots', 'abc', 'config.json'), '{}');
    return folder;
  };
  const folders = { default: place('.cache', 'huggingface'), xdg: place('xdg', 'huggingface'), hf: place('hf') };
  const folderOf = (env: Record<string, string>) => findModels({ HOME: home, ...env }).find(({ name }) => name === 'org/m')?.folder;
  t.equal(folderOf({}), join(folders.default, 'snapshots', 'abc'));
  t.equal(folderOf({ XDG_CACHE_HOME: join(home, 'xdg') }), join(folders.xdg, 'snapshots', 'abc'));
  t.equal(folderOf({ XDG_CACHE_HOME: join(home, 'xdg'), HF_HOME: join(home, 'hf') }), join(folders.hf, 'snapshots', 'abc'));
  t.end();
});
