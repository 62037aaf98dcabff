/** Starting ranks: their environment, and what is refused before any of them starts. */
import { once } from 'node:events';
import { readlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { fixture, ndsrun, Running } from '../helpers/launcher.ts';
import { part } from '../helpers/scale.ts';

interface Printed {
  readonly env: Record<string, string>;
  readonly args: string[];
  readonly pid: number;
  readonly ppid: number;
}

/** The output of each rank of `env.ts`, in rank order. */
function printedEnvs(stdout: string): Printed[] {
  const lines = stdout.trim().split('\n').sort();
  return lines.map((line) => JSON.parse(line.replace(/^\[rank \d+\] /, '')) as Printed);
}

t.test('every rank gets its environment and the arguments', async (t) => {
  const { code, stdout, stderr } = await ndsrun(['--nproc_per_node=3', '--step-timeout', '7', fixture('env.ts'), '--tee', '1', '--', '-x']);
  t.equal(code, 0, stderr);
  const ranks = printedEnvs(stdout);
  t.equal(ranks.length, 3);
  for (const [rank, { env, args, pid, ppid }] of ranks.entries()) {
    t.same(args, ['--tee', '1', '--', '-x']);
    t.match(env, {
      RANK: String(rank),
      LOCAL_RANK: String(rank),
      WORLD_SIZE: '3',
      LOCAL_WORLD_SIZE: '3',
      GROUP_RANK: '0',
      GROUP_WORLD_SIZE: '1',
      ROLE_RANK: String(rank),
      ROLE_WORLD_SIZE: '3',
      ROLE_NAME: 'default',
      MASTER_ADDR: '127.0.0.1',
      MASTER_PORT: /^\d+$/,
      TORCHELASTIC_RESTART_COUNT: '0',
      TORCHELASTIC_MAX_RESTARTS: '0',
      TORCHELASTIC_RUN_ID: /./,
      OMP_NUM_THREADS: /^[1-9]\d*$/,
      NDS_RUN_DIR: /^\//,
      NDS_STEP_TIMEOUT_MS: '7000',
      NDS_LAUNCHER_PID: String(ppid),
      NDS_RANK_PID: String(pid),
    });
    t.equal(env['MASTER_PORT'], ranks[0]?.env['MASTER_PORT'], 'one port for all');
    t.equal(env['NDS_RUN_DIR'], ranks[0]?.env['NDS_RUN_DIR'], 'one folder for all');
  }
});

t.test('threads that the user asked for stay', async (t) => {
  const { stdout } = await ndsrun(['--nproc-per-node=2', fixture('env.ts')], { env: { OMP_NUM_THREADS: '5' } });
  t.same(
    printedEnvs(stdout).map(({ env }) => env['OMP_NUM_THREADS']),
    ['5', '5'],
  );
});

t.test('ranks share memory that has no name', { skip: process.platform !== 'linux' && 'reads /proc' }, async (t) => {
  const running = new Running(['--nproc-per-node=2', fixture('act.ts'), '0=wait', '1=wait']);
  const pids = await running.ranks(2);
  const files = pids.map((pid) => readlinkSync(`/proc/${pid}/fd/3`));
  t.match(files[0], / \(deleted\)$/);
  t.equal(files[0], files[1]);
  running.child.kill('SIGTERM');
  await running.ended();
  t.same(running.leftovers(), []);
});

t.test('a number of ranks, and a variable instead of an option', async (t) => {
  const { stdout } = await ndsrun([fixture('env.ts')], { env: { PET_NPROC_PER_NODE: '2', RANK: '7', WORLD_SIZE: '9' } });
  t.same(
    printedEnvs(stdout).map(({ env }) => [env['RANK'], env['WORLD_SIZE']]),
    [
      ['0', '2'],
      ['1', '2'],
    ],
  );
});

t.test('RANK and WORLD_SIZE from outside are ignored with one warning', async (t) => {
  const { stderr, stdout } = await ndsrun(['--nproc-per-node=1', fixture('env.ts')], { env: { RANK: '7', WORLD_SIZE: '9' } });
  t.equal(stderr, '[ndsrun] warning: ignored RANK=7 and WORLD_SIZE=9 from the environment: ndsrun sets these for its ranks\n');
  t.equal(printedEnvs(stdout)[0]?.env['RANK'], '0');
});

t.test('JavaScript and TypeScript of every kind', async (t) => {
  const dir = t.testdir({
    'a.mts': 'const text: string = process.argv[1]!; console.log(text.slice(-5));',
    'b.mjs': 'console.log(process.argv[1].slice(-5));',
    'c.cjs': 'console.log(require("node:path").basename(__filename));',
    'd.cts': 'const text: string = __filename; console.log(text.slice(-5));',
  });
  for (const name of ['a.mts', 'b.mjs', 'c.cjs', 'd.cts']) {
    const { stdout, stderr, code } = await ndsrun(['--nproc-per-node=1', join(dir, name)]);
    t.same([stdout, code], [`${name}\n`, 0], stderr);
  }
});

t.test('a script written as an ES module is one, whatever its package says', async (t) => {
  const typescript = `
    import { basename } from 'node:path';
    import { ready } from './part';
    import * as part from './part.ts';
    import legacy, { kind } from './legacy.js';
    await using end = { async [Symbol.asyncDispose]() { console.log('disposed'); } };
    const name: string = basename(import.meta.url);
    console.log(name, ready, ready === part.ready, kind, legacy.kind);
  `;
  const files = {
    'story.ts': typescript,
    'part.ts': 'export const ready: object = await Promise.resolve([1]);',
    'legacy.js': "exports.kind = typeof require; // import x from 'x'",
    'plain.js': "import { basename } from 'node:path';\nconsole.log(await basename(import.meta.url));",
    'old.ts': "import { basename } from 'node:path';\nconst name: string = basename(__filename);\nconsole.log(name, typeof require);",
    'older.js': "const { basename } = require('node:path');\nconsole.log(basename(__filename));",
  };
  for (const type of ['commonjs', undefined]) {
    const dir = t.testdir({ 'package.json': JSON.stringify({ type }), ...files });
    const expected = {
      'story.ts': 'story.ts [ 1 ] true function function\ndisposed\n',
      'plain.js': 'plain.js\n',
      'old.ts': 'old.ts function\n',
      'older.js': 'older.js\n',
    };
    for (const [name, printed] of part(Object.entries(expected), 2)) {
      const { stdout, stderr, code } = await ndsrun(['--nproc-per-node=1', join(dir, name)]);
      t.same([stdout, stderr, code], [printed, '', 0], `${name} where type is ${type}`);
    }
  }
});

t.test('--no-node runs a program', async (t) => {
  const { stdout, code } = await ndsrun(['--nproc-per-node=2', '--no-node', 'sh', '-c', 'echo "$RANK of $WORLD_SIZE"; exit 0']);
  t.equal(code, 0);
  t.same(stdout.trim().split('\n').sort(), ['[rank 0] 0 of 2', '[rank 1] 1 of 2']);
});

t.test('--virtual-local-rank shows each rank one GPU', async (t) => {
  const { stdout } = await ndsrun(['--nproc-per-node=2', '--virtual-local-rank', fixture('env.ts')], {
    env: { CUDA_VISIBLE_DEVICES: '4,6' },
  });
  t.same(
    printedEnvs(stdout).map(({ env }) => env['CUDA_VISIBLE_DEVICES']),
    ['4', '6'],
  );
});

t.test('--dry-run prints the plan and starts nothing', async (t) => {
  const dir = t.testdir();
  const script = join(dir, 'writes.mjs');
  writeFileSync(script, "import { writeFileSync } from 'node:fs'; writeFileSync(new URL('ran', import.meta.url), '');");
  const { stdout, code } = await ndsrun(['--nproc-per-node=2', '--dry-run', '--rdzv-id=job7', script, '--flag']);
  t.equal(code, 0);
  const { ranks, nnodes } = JSON.parse(stdout) as {
    nnodes: number;
    ranks: { rank: number; args: string[]; env: Record<string, string> }[];
  };
  t.equal(nnodes, 1);
  t.same(
    ranks.map(({ rank, env }) => [rank, env['RANK'], env['TORCHELASTIC_RUN_ID']]),
    [
      [0, '0', 'job7'],
      [1, '1', 'job7'],
    ],
  );
  t.same(ranks[0]?.args.slice(-2), [script, '--flag']);
  t.throws(() => readlinkSync(join(dir, 'ran')), { code: 'ENOENT' });
});

t.test('the master port is the one asked for, and is refused when it is taken', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const args = ['--nproc-per-node=1', '--master-port', String(port), fixture('env.ts')];
  const taken = await ndsrun(args);
  t.equal(taken.code, 64);
  t.match(taken.stderr, `Expected a free port for the master at 127.0.0.1:${port}`);
  other.close();
  await once(other, 'close');
  const { stdout } = await ndsrun(args);
  t.equal(printedEnvs(stdout)[0]?.env['MASTER_PORT'], String(port));
});

t.test('what cannot run is refused with 64 before anything starts', async (t) => {
  const cases: [string[], RegExp][] = [
    [['missing.ts'], /Expected a script but received missing\.ts, which does not exist \[ERR_NOT_FOUND\]/],
    [['--nproc', '2', fixture('env.ts')], /received --nproc \(did you mean --nproc-per-node\?\)/],
    [['--nnodes', '2', '--node-rank', '0', fixture('env.ts')], /Expected --master-addr, the address of node 0, with 2 nodes/],
    [['--local-ranks-filter', '2', '--nproc-per-node=2', fixture('env.ts')], /Expected local ranks below 2/],
    [[], /Usage: ndsrun/],
  ];
  for (const [args, message] of cases) {
    const { code, stderr, stdout } = await ndsrun(args);
    t.equal(code, 64, args.join(' '));
    t.match(stderr, message);
    t.equal(stdout, '');
  }
});
