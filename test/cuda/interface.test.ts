/**
 * The border of nds_cuda.so: plain C, nothing exported but its entry point, and the same results and errors where it comes from another
 * compiler and standard library than nds.node.
 */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { which } from '../../native/tools/compilers.mjs';
import { native } from '../../rank/native.ts';
import type { OpSpec, ProgramSpec, ValueSpec } from '../../rank/program-spec.ts';
import { runJob, type Session } from '../helpers/gang.ts';
import { goodPlan, nextTokenProgram, submit, withFormat } from '../helpers/next-token.ts';
import { isFull } from '../helpers/scale.ts';
import { backendOfClang, emulatedBackend } from './emulated.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
const story = join(root, 'examples', 'models', 'story-180k');

const { NDS_CUDA_LIBRARY: ours = '' } = await emulatedBackend();
const libraries: Record<string, string> = { 'the compiler of nds.node': ours };
const hasClang = which('clang++') !== null && isLibcxxThere();
// CI installs both.
if (isFull && (hasClang || process.env['CI'])) libraries['clang and libc++'] = await backendOfClang();
const missing = isFull ? 'clang++ or libc++ is not installed (Debian: clang, libc++-dev, libc++abi-dev)' : 'NDS_TEST_FULL=1 compiles it';
const skip = libraries['clang and libc++'] === undefined && missing;

function isLibcxxThere(): boolean {
  return existsSync(execFileSync('clang++', ['-print-file-name=libc++.so'], { encoding: 'utf8' }).trim());
}

t.test('nothing is exported but entry points', async (t) => {
  for (const [name, library] of Object.entries(libraries)) {
    const { stdout } = await run('nm', ['--dynamic', '--defined-only', '--format=posix', library]);
    const symbols = stdout.trim().split('\n');
    t.same(symbols.map((line) => line.split(' ')[0]).sort(), ['nds_cuda_interface', 'nds_simt_enqueue'], name);
  }
});

t.test('a host in C', async (t) => {
  const host = join(t.testdir(), 'host');
  const source = join(root, 'test', 'cuda', 'interface_host.c');
  const flags = ['-std=c11', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Wpedantic', '-Werror', '-I', join(root, 'native')];
  await run('cc', [...flags, source, '-ldl', '-o', host]);
  const once = [
    'version 5, size as declared: 1',
    'info: ok',
    '1 devices, emulated: 1, Emulated device 0',
    'create: ok',
    'load: ERR_INTERNAL Expected the bytes of a program of this version',
    'create: ERR_CUDA Expected counting CUDA devices to succeed but received: no CUDA-capable device is detected',
    'closed: 1',
  ];
  for (const [name, library] of Object.entries(libraries)) {
    const { stdout } = await run(host, [library]);
    t.same(stdout.trim().split('\n'), [...once, ...once], name);
  }
});

/** Attention over the embedding, whose result nothing reads: CUDA refuses programs without any. */
function withAttention(program: ProgramSpec): ProgramSpec {
  const heads = {
    headDim: 8,
    firstHead: 0,
    numHeads: 2,
    firstKvHead: 0,
    numKvHeads: 1,
    groupSize: 2,
    qOffset: 0,
    kOffset: 16,
    vOffset: 24,
  };
  const [embedding, ...others] = program.ops as [OpSpec, ...OpSpec[]];
  const rotated: ValueSpec = { rows: 'tokens', width: 16, type: 'activation' };
  const q = program.values.length;
  return {
    ...program,
    ropes: [{ invFreq: Float32Array.of(1, 0.5, 0.25, 0.125), scale: 1, queryScales: new Float32Array(0), queryLength: 1 }],
    values: [...program.values, rotated, rotated],
    ops: [
      embedding,
      { op: 'ropeAndStore', qkv: 0, heads, rope: 0, layer: 0, out: q },
      { op: 'pagedAttention', q, heads, layer: 0, scale: 1, slidingWindow: 0, out: q + 1 },
      ...others,
    ],
  };
}

t.test('plans and errors in one process', async (t) => {
  const program = withAttention(nextTokenProgram(t));
  const place = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 1, shmFd: -1, startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 };
  const options = { ...place, numThreads: 1, cuda: { deviceIndex: 0, deterministic: true } };
  t.teardown(() => delete process.env['NDS_CUDA_LIBRARY']);
  for (const [name, library] of Object.entries(libraries)) {
    process.env['NDS_CUDA_LIBRARY'] = library;
    for (const round of [1, 2]) {
      const runner = native().createRunner(options);
      await runner.load(program);
      t.same([...(await submit(runner, goodPlan)).tokenIds], [8], `${name}: a token, round ${round}`);
      const expected = { code: 'ERR_PLAN', message: 'Plan 1: expected a slot below 2 but received 2' };
      await t.rejects(submit(runner, { ...goodPlan, step: 1, slots: Int32Array.of(2) }), expected, `${name}: a bad plan`);
      await runner.close();
    }
    const refused = {
      'Expected a program with attention and a sample operator': { code: 'ERR_INTERNAL', program: nextTokenProgram(t) },
      'Expected float32, bfloat16 or float16 weights on CUDA for head but received a quantized format: use the CPU': {
        code: 'ERR_UNSUPPORTED',
        program: withFormat(program, 'int4'),
      },
      'Expected a KV cache of int8 or the dtype of activations on CUDA': {
        code: 'ERR_UNSUPPORTED',
        program: { ...program, kv: { ...program.kv, dtype: 'bfloat16' as const } },
      },
    };
    for (const [message, { code, program }] of Object.entries(refused)) {
      const runner = native().createRunner(options);
      await t.rejects(runner.load(program), { code, message }, `${name}: a refused program`);
      await runner.close();
    }
  }
});

t.test('a model gives the same tokens and logits', { skip }, async (t) => {
  const text = {
    type: 'generate',
    prompt: 'Once upon a time',
    params: { temperature: 0.8, seed: 3, maxTokens: 12, ignoreEos: true },
  } as const;
  const sessions = ['float32', 'bfloat16'].map((dtype): Session => {
    const options = { dtype: dtype as 'float32' | 'bfloat16', device: 'cuda', deterministic: true } as const;
    return { model: story, options, rounds: [[text, { type: 'logits', promptTokenIds: [5, 6, 7, 8, 9] }]] };
  });
  const [expected, received] = await Promise.all(
    Object.values(libraries).map((library) => runJob(1, sessions, { NDS_CUDA_LIBRARY: library })),
  );
  t.ok(expected?.sessions[0]?.[0]?.tokenIds?.length === 12);
  t.same(received?.sessions, expected?.sessions);
});
