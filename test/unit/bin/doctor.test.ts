/** The doctor's verdict: which models fit, their bound, and what would help. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type ModelNeeds, needsOf } from '../../../bin/commands/doctor-models.ts';
import { judge, verdictLines } from '../../../bin/commands/doctor-verdict.ts';

const shipped = fileURLToPath(new URL('../../../examples/models', import.meta.url));
const gibibyte = 2 ** 30;

const model = (name: string, weightBytes: number): ModelNeeds => ({
  name,
  folder: `/${name}`,
  weightBytes,
  readBytes: weightBytes,
  neededBytes: weightBytes + gibibyte / 4,
  quantizedBytes: null,
  refused: null,
  integers: null,
});

const cuda = { path: '', build: null, info: null, reason: 'never built' };
const findings: Parameters<typeof judge>[0] = {
  versions: { package: '1', node: 'v20', npm: null, system: '' },
  cpu: { cores: 2, allowedCores: 2, quotaCores: null, model: '', isas: ['avx2'], isa: 'avx2', error: null },
  memory: { totalBytes: 16 * gibibyte, freeBytes: 9 * gibibyte, availableBytes: 8 * gibibyte, limitBytes: null, shmBytes: 1 },
  gpus: [],
  cuda,
  libraries: [],
  tools: { compiler: 'g++', cmake: null, nvcc: null },
  speed: { readBytesPerSecond: 20e9, flopsPerSecond: 400e9 },
  models: [
    model('small', 10 * 2 ** 20),
    {
      ...model('middle', 2e9),
      integers: { numKept: { int8: 0, int8_zero: 0, int4: 5, int4_zero: 0, fp8: 0 }, expanded: [{ name: 'o', reason: 'is odd' }] },
    },
    { ...model('edge', 7.75 * gibibyte), quantizedBytes: { int8: 4 * gibibyte, int4: 2.25 * gibibyte } },
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
  t.match(text, /^ {2}middle +1\.9 GiB of weights \(packed as int4: 5, bfloat16: 1\), fits, at most 10 tokens\/s at batch 1/m);
  t.match(text, /^ {2}edge +7\.8 GiB of weights \(4\.0 GiB as int8; 2\.3 GiB as int4\), fits/m);
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

t.test('what a model needs', (t) => {
  const odd = t.testdir({ 'config.json': '{"architectures":["BertModel"]}' });
  t.match(needsOf({ name: 'org/odd', folder: odd }).refused, /BertModel/);
  const { refused, weightBytes, readBytes, neededBytes, quantizedBytes } = needsOf({
    name: 'nds:story-5m',
    folder: join(shipped, 'story-5m'),
  });
  // 6 layers × K and V × 4 KV heads of 32 × bf16 × 2,048 tokens.
  t.equal(neededBytes - weightBytes, 6 * 2 * 4 * 32 * 2 * 2048);
  t.equal(refused, null);
  // 10,500,480 bytes of file: the embedding is the LM head too, and packed once more for it.
  t.ok(weightBytes > 10.5e6);
  t.ok(readBytes < 10.5e6 && readBytes > 9e6, String(readBytes));
  // 6 layers of 786,432 weights; int4 has an fp16 scale for 32 of them, int8 one for 32 to 128, as groups end with chunks.
  const [layers, head] = [6 * 786_432, 2048 * 256];
  const int8Bytes = (numWeights: number): [number, number] => [numWeights * (1 + 2 / 128), numWeights * (1 + 2 / 32)];
  // The embedding in bf16 and norms in fp32; beside int4 layers the LM head is int8.
  const rest = head * 2 + 4 * (6 * (2 * 256 + 2 * 32) + 256);
  for (const [bytes = 0, [least, most]] of [
    [quantizedBytes?.int8, int8Bytes(layers + head)],
    [(quantizedBytes?.int4 ?? 0) - layers * (1 / 2 + 2 / 32), int8Bytes(head)],
  ] as const) {
    t.ok(bytes - rest >= least && bytes - rest <= most, `${least} <= ${bytes - rest} <= ${most}`);
  }
  t.end();
});
