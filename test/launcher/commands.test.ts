/** The sub-commands on the command line. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findMissing } from '../../bin/commands/doctor.ts';
import { cachedPaths, withOpened } from '../../bin/commands/doctor-libraries.ts';
import { executable, ndsrun, Running } from '../helpers/launcher.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));

t.test('--version and --help', async (t) => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  t.same(await ndsrun(['--version']), { code: 0, signal: null, stdout: `${version}\n`, stderr: '' });
  const { stdout, code } = await ndsrun(['--help']);
  t.equal(code, 0);
  t.match(stdout, /Usage: ndsrun \[options\] \[--\] script/);
  t.notMatch(stdout, /nproc_per_node/, 'one spelling is enough to read');
  t.match((await ndsrun(['generate', '--help'])).stdout, /--max-tokens/);
});

t.test('doctor', async (t) => {
  const { code, stdout } = await ndsrun(['doctor', '--json']);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    versions: { node: process.version },
    cpu: { allowed_cores: Number, isa: String, error: null },
    memory: { total_bytes: Number, free_bytes: Number },
    libraries: [{ name: 'libcuda' }, { name: 'libcublasLt' }, { name: 'libnccl' }],
    speed: { read_bytes_per_second: Number, flops_per_second: Number },
    missing: Array,
    verdict: { device: 'cpu', models: [{ name: 'nds:story-5m' }, { name: 'nds:story-180k' }] },
  });
  const text = await ndsrun(['doctor']);
  t.match(text.stdout, /^instructions +.*\(in use: \w+\)$/m);
  t.match(text.stdout, /^Verdict: models .* run here, on \d+ cores with \w+\.$/m);
  t.equal((await ndsrun(['doctor', '--jsn'])).code, 64);
});

t.test('build', async (t) => {
  const { code, stdout } = await ndsrun(['build']);
  t.equal(code, 0);
  t.match(stdout, /^native core +\/.*\/build\/native\/nds\.node \(.*in use: \w+\)\nCUDA backend +[^\n]+\n$/);
  t.match(await ndsrun(['build', '--cuda'], { env: { NDS_CUDA: 'off' } }), { code: 70, stderr: /NDS_CUDA.*received off/ });
  t.match(await ndsrun(['build', 'all']), { code: 64, stderr: /no arguments for build/ });
});

t.test('what the doctor misses', async (t) => {
  const found = {
    versions: { package: '1', node: 'v20', npm: null, system: '' },
    cpu: { cores: 2, allowedCores: 2, quotaCores: null, model: '', isas: [], isa: null, error: 'Expected a compiler' },
    memory: { totalBytes: 1, freeBytes: 1, availableBytes: 1, limitBytes: null, shmBytes: 2 ** 20 },
    gpus: ['H100'],
    cuda: { path: '/nds_cuda.so', build: null, info: null, reason: 'it was never built' },
    libraries: [{ name: 'libnccl', path: null, version: null, reason: null, effect: 'slower', remedy: 'install NCCL' }],
    tools: { compiler: null, cmake: null, nvcc: null },
  };
  t.same(
    findMissing(found).map(({ what, isFatal }) => [what, isFatal]),
    [
      ['a C++20 compiler', true],
      ['space in /dev/shm', false],
      ['a CUDA backend for these GPUs', false],
      ['libnccl', false],
    ],
  );
  t.match(findMissing(found)[2]?.remedy, /^install the CUDA toolkit.*node \/.*\/bin\/ndsrun\.js build --cuda$/);
  t.same(
    findMissing({ ...found, gpus: [] }).map(({ what }) => what),
    ['a C++20 compiler', 'space in /dev/shm'],
    'no GPU, no libraries',
  );
  const cache = '2 libs found in cache\n\tlibnccl.so.2 (libc6,x86-64) => /usr/lib/libnccl.so.2\n\tlibnccl.so.23 (libc6) => /x\n';
  t.same(cachedPaths(cache, 'libnccl.so.2'), ['/usr/lib/libnccl.so.2']);
  const opened = { name: 'NCCL', path: '/opt/libnccl.so.2', version: null, reason: null };
  t.match(withOpened(found.libraries, [opened]), [{ name: 'libnccl', path: '/opt/libnccl.so.2', effect: 'slower' }]);
  t.same(withOpened(found.libraries, []), found.libraries);
});

t.test('generate writes the text, and nothing else, to standard output', async (t) => {
  const { code, stdout, stderr } = await ndsrun([
    'generate',
    model,
    'Once upon a time',
    '--nproc-per-node=2',
    '--max-tokens=24',
    '--temperature=0',
  ]);
  t.equal(code, 0, stderr);
  t.match(stdout, /^[^[]+\n$/);
  t.match(
    stderr,
    /^24 tokens: model loaded in [\d.]+ s, first token after [\d.]+ s, then [\d.]+ tokens\/s\nthe text was cut: --max-tokens is 24\n$/m,
  );
  const alone = await ndsrun(['generate', model, '-', '--nproc_per_node=1', '--max_tokens', '24', '--temperature', '0', '--quiet'], {
    input: 'Once upon a time\n',
  });
  t.same([alone.stdout, alone.stderr], [stdout, ''], 'the same with one rank, the other spellings, and the prompt on standard input');
  const named = ['generate', model, '--prompt=Once upon a time', '--nproc-per-node=1', '--max-tokens=24', '--temperature=0', '--quiet'];
  t.equal((await ndsrun(named)).stdout, stdout);
});

t.test('generate --json, --seed and --stop', async (t) => {
  const run = async (...options: string[]) => {
    const { stdout } = await ndsrun([
      'generate',
      '--json',
      '--max-tokens=24',
      ...options,
      model,
      'Once upon a time',
      '--nproc-per-node=1',
      '--quiet',
    ]);
    return JSON.parse(stdout) as { text: string; token_ids: number[]; seed: string; finish_reason: string; stop_reason: string | null };
  };
  const drawn = await run();
  t.equal(drawn.token_ids.length, 24);
  const again = await run('--seed', drawn.seed);
  t.same(again.token_ids, drawn.token_ids);
  const stop = drawn.text.trim().split(' ').at(2) ?? '';
  const stopped = await run('--seed', drawn.seed, '--stop', 'never to be seen', '--stop', stop);
  t.match(stopped, { finish_reason: 'stop', stop_reason: stop, text: drawn.text.slice(0, drawn.text.indexOf(stop)) });
  t.equal((await run('--seed', '18446744073709551615')).seed, '18446744073709551615');
});

t.test('what generate refuses', async (t) => {
  const cases: [args: string[], code: number, message: RegExp][] = [
    [[model], 64, /Expected MODEL and PROMPT but received 1/],
    [[model, 'two', 'prompts'], 64, /quote a prompt with spaces/],
    [[model, 'x', '--prompt=y'], 64, /Expected MODEL alone beside --prompt but received 2 operands/],
    [[model, '--messages=x', '--prompt=y'], 64, /Expected --prompt or --messages but received both/],
    [[model, '--messages=/no/such.json'], 64, /Expected a file of messages but received \/no\/such.json/],
    [[model, 'x', '--chat'], 64, /Expected a chat template.*\[ERR_REQUEST\]/],
    [[model, 'x', '--temprature=1'], 64, /did you mean --temperature\?/],
    [[model, 'x', '--seed=18446744073709551616'], 64, /2\^64 - 1 for --seed/],
    [[model, 'x', '--top-p=2'], 64, /topP.*\[ERR_REQUEST\]/],
    [['/no/such/model', 'x'], 65, /^ndsrun: .*\/no\/such\/model.*\[ERR_MODEL_NOT_FOUND\]\n$/],
  ];
  for (const [args, expected, message] of cases) {
    const { code, stdout, stderr } = await ndsrun(['generate', '--nproc-per-node=2', ...args]);
    t.equal(code, expected, args.join(' '));
    t.match(stderr, message);
    t.notMatch(stderr, /^\s+at /m, 'no stack of ours');
    t.equal(stdout, '');
  }
  const { code, stderr } = await ndsrun([
    '--no-node',
    '--nproc-per-node=1',
    'sh',
    '-c',
    `exec "${process.execPath}" ${executable} generate m "$(printf '\\377')"`,
  ]);
  t.equal(code, 64);
  t.match(stderr, /Expected a prompt in UTF-8/);
});

t.test('generate ends with its launcher', async (t) => {
  const TMPDIR = mkdtempSync('/tmp/t-');
  t.teardown(() => rmSync(TMPDIR, { recursive: true }));
  const running = new Running(['generate', model, 'Once', '--nproc-per-node=2'], { env: { TMPDIR } });
  // The gang's folder exists before its ranks, which take far longer to load a model than a signal to arrive.
  while (!readdirSync(TMPDIR).some((name) => name.startsWith('nds-'))) await new Promise((resolve) => setTimeout(resolve, 2));
  running.child.kill('SIGINT');
  t.equal((await running.ended()).code, 130);
  t.notMatch(readdirSync(TMPDIR).join(), /nds-/);
});
