/** How a job fails: the failure that counts, what the other ranks get, the exit code, and the report. */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { allGone, fixture, isAlive, ndsrun, Running } from '../helpers/launcher.ts';

const act = fixture('act.ts');

/** The fields of `--report` that are checked here. */
interface Report {
  readonly first_failure: { readonly stderr_tail: readonly string[] } | null;
  readonly collateral: readonly { readonly rank: number; readonly signal: string | null }[];
}

function readReport(file: string): Report {
  return JSON.parse(readFileSync(file, 'utf8'));
}

t.test('the exit code is that of the rank that failed', async (t) => {
  const cases: [actions: string[], code: number][] = [
    [['0=wait', '1=exit:7'], 7],
    [['0=wait', '1=throw:boom'], 1],
    [['0=throw-nds:ERR_CONFIG', '1=wait'], 65],
    [['0=wait', '1=throw-nds:ERR_MISMATCH'], 78],
    [['0=throw-handled'], 21],
    [['0=reject:late'], 1],
    [['0=wait', '1=kill:SIGSEGV'], 139],
    [['0=kill:SIGKILL', '1=wait'], 137],
    [['0=await'], 13],
  ];
  for (const [actions, expected] of cases) {
    const { code, stderr } = await ndsrun([`--nproc-per-node=${actions.length}`, act, ...actions]);
    t.equal(code, expected, `${actions.join(' ')}: ${stderr}`);
  }
});

t.test('the first failure wins, and the report says everything about it', async (t) => {
  const report = join(t.testdir(), 'report.json');
  const { code, stderr } = await ndsrun(['--nproc-per-node=3', '--report', report, act, '0=wait', '1=wait', '2=throw:the cause']);
  t.equal(code, 1);
  const { first_failure: firstFailure, collateral, ...rest } = readReport(report);
  t.match(rest, {
    version: 1,
    exit_code: 1,
    summary: 'rank 2 failed first: exit code 1',
    command: [act, '0=wait', '1=wait', '2=throw:the cause'],
  });
  t.match(firstFailure, {
    rank: 2,
    exit_code: 1,
    signal: null,
    oom_killed: false,
    error: { name: 'Error', message: 'the cause', stack: /act\.[jt]s:\d+:\d+/ },
  });
  t.match(firstFailure?.stderr_tail.join('\n'), /Error: the cause/);
  t.same(
    collateral.map(({ rank, signal }) => [rank, signal]),
    [
      [0, 'SIGTERM'],
      [1, 'SIGTERM'],
    ],
  );
  const lines = stderr.split('\n').filter((line) => line.startsWith('[ndsrun]'));
  t.match(lines[0], /^\[ndsrun\] rank 2 failed first: exit code 1, on /);
  t.match(lines.join('\n'), /Error: the cause/);
  t.ok(lines.length <= 15);
  // Node's own message is there too, as the user's script is not wrapped.
  t.match(stderr, /\[rank 2\] .*throw new Error\(value\)/);
});

t.test('a script that throws on every rank fails once', async (t) => {
  const { code, stderr } = await ndsrun(['--nproc-per-node=3', act, ...[0, 1, 2].map((rank) => `${rank}=throw-nds:ERR_TENSOR`)]);
  t.equal(code, 65);
  t.equal(stderr.match(/failed first/g)?.length, 1);
  t.match(stderr, /Expected something for a test but received nothing \[ERR_TENSOR\]/);
});

t.test('the others learn the cause before they are stopped', async (t) => {
  const go = join(t.testdir(), 'go');
  const running = new Running(['--nproc-per-node=2', act, '0=record', `1=fail-on-file:${go}`]);
  await running.ranks(1);
  writeFileSync(go, '');
  const { code, stdout } = await running.ended();
  t.equal(code, 1);
  const failure = JSON.parse(/failure (.*)\n/.exec(stdout)?.[1] ?? 'null') as object;
  t.same(failure, { rank: 1, exitCode: 1, signal: null, code: null, message: 'the file is there' });
  t.same(running.leftovers(), []);
});

t.test('what ignores SIGTERM is killed after --failure-timeout', async (t) => {
  const go = join(t.testdir(), 'go');
  const running = new Running(['--nproc-per-node=3', '--failure-timeout=2', act, '0=stubborn', '1=stuck', `2=fail-on-file:${go}`]);
  const pids = await running.ranks(2);
  writeFileSync(go, '');
  const { code, stdout, stderr } = await running.ended();
  t.equal(code, 1);
  t.match(stdout, /0 got SIGTERM/);
  t.match(stderr, /ended because of it: rank 0 \(SIGKILL\), rank 1 \(SIGKILL\)/);
  t.same(pids.filter(isAlive), []);
});

t.test('what a rank started goes with it', async (t) => {
  const go = join(t.testdir(), 'go');
  const running = new Running(['--nproc-per-node=2', act, '0=child', `1=fail-on-file:${go}`]);
  const child = Number((await running.printed(/child (\d+)/))[1]);
  t.ok(isAlive(child));
  writeFileSync(go, '');
  t.equal((await running.ended()).code, 1);
  await allGone([child]);
});

t.test('the report keeps the last 50 lines of standard error', async (t) => {
  const report = join(t.testdir(), 'report.json');
  await ndsrun(['--nproc-per-node=1', '--report', report, act, '0=stderr:200']);
  const { first_failure: firstFailure } = readReport(report);
  t.same(
    firstFailure?.stderr_tail,
    Array.from({ length: 50 }, (_, index) => `line ${150 + index}`),
  );
});

t.test('rank 0 ends the job: followers may end before or after it, but not stay', async (t) => {
  t.equal((await ndsrun(['--nproc-per-node=2', act])).code, 0);
  t.equal((await ndsrun(['--nproc-per-node=2', act, '0=exit:0', '1=exit:4'])).code, 4);
  const { code, stderr } = await ndsrun(['--nproc-per-node=2', '--shutdown-timeout=0.5', act, '1=wait']);
  t.equal(code, 75);
  t.match(stderr, /rank 1 still ran long after rank 0 had ended/);
});

t.test('a program that cannot be executed', async (t) => {
  const dir = t.testdir({ bad: '#!/no/such/interpreter\n' });
  const program = join(dir, 'bad');
  chmodSync(program, 0o755);
  const { code, stderr } = await ndsrun(['--nproc-per-node=2', '--no-node', program]);
  t.equal(code, 64);
  t.match(stderr, /it could not be started/);
});
