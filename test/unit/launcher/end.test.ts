/** The first failure, its exit code, and its report. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { RankExit, RankOutput } from '../../../launcher/agent-messages.ts';
import { buildReport, type ReportInput } from '../../../launcher/error-report.ts';
import { formatReport } from '../../../launcher/report-text.ts';
import { exitCodeOf, rootCause, type Suspect } from '../../../launcher/root-cause.ts';
import { scriptLine } from '../../../launcher/stack.ts';
import { NdsError } from '../../../protocol/errors.ts';
import {
  describeError,
  type RankErrorRecord,
  readFailure,
  readRankError,
  writeFailure,
  writeRankError,
} from '../../../protocol/failure.ts';

const exit = (rank: number, how: Partial<RankExit>): RankExit => ({
  rank,
  pid: 100 + rank,
  exitCode: null,
  signal: null,
  spawnError: null,
  time: 1000,
  ...how,
});
const error = (rank: number, code: string | null, timestamp: number): RankErrorRecord => ({
  ...describeError(rank, new Error(`of rank ${rank}`)),
  code,
  timestamp,
});

t.test('the earliest failure is the cause', async (t) => {
  const suspects: Suspect[] = [
    { rank: 0, exit: exit(0, { exitCode: 1, time: 30 }), error: error(0, null, 20) },
    { rank: 1, exit: exit(1, { signal: 'SIGSEGV', time: 10 }), error: null },
    { rank: 2, exit: null, error: error(2, 'ERR_PLAN', 15) },
  ];
  t.equal(rootCause(suspects).rank, 1);
  t.equal(rootCause(suspects.slice(0, 1).concat(suspects.slice(2))).rank, 2, 'a record counts before its exit');
});

t.test('a lost peer is an echo, however early it was noticed', async (t) => {
  const echo: Suspect = { rank: 0, exit: exit(0, { exitCode: 1, time: 9 }), error: error(0, 'ERR_PEER_LOST', 5) };
  const silentEcho: Suspect = { rank: 2, exit: exit(2, { exitCode: 69, time: 6 }), error: null };
  const cause: Suspect = { rank: 1, exit: exit(1, { exitCode: 3, time: 40 }), error: null };
  t.equal(rootCause([echo, silentEcho, cause]).rank, 1);
  t.equal(rootCause([silentEcho, echo]).rank, 0, 'among echoes the earliest');
});

t.test('exit codes', async (t) => {
  const failed = (how: Partial<RankExit>, record: RankErrorRecord | null = null) => {
    const exits = [exit(0, { signal: 'SIGTERM' }), exit(1, how)];
    return exitCodeOf({ kind: 'failed', root: { rank: 1, exit: null, error: record } }, exits);
  };
  t.equal(failed({ exitCode: 7 }), 7);
  t.equal(failed({ signal: 'SIGSEGV' }), 139);
  t.equal(failed({ signal: 'SIGKILL' }), 137);
  t.equal(failed({ signal: 'SIGTERM' }, { ...error(1, 'ERR_CONFIG', 1), exitCode: 65 }), 65, 'we were faster than its exit');
  t.equal(failed({ spawnError: Object.assign(new Error(), { code: 'ENOENT' }) }), 64);
  t.equal(failed({ spawnError: Object.assign(new Error(), { code: 'EAGAIN' }) }), 70);
  t.equal(exitCodeOf({ kind: 'finished' }, []), 0);
  t.equal(exitCodeOf({ kind: 'stuck', ranks: [1] }, []), 75);
  const signalled = (signal: NodeJS.Signals, wasForced: boolean, exits: RankExit[]) =>
    exitCodeOf({ kind: 'signalled', signal, wasForced }, exits);
  t.equal(signalled('SIGINT', false, [exit(0, { exitCode: 0 })]), 130);
  t.equal(signalled('SIGHUP', false, []), 129);
  t.equal(signalled('SIGTERM', false, [exit(0, { exitCode: 0 }), exit(1, { signal: 'SIGTERM' }), exit(2, { exitCode: 143 })]), 0);
  t.equal(signalled('SIGTERM', false, [exit(0, { exitCode: 0 }), exit(1, { exitCode: 69 })]), 69);
  t.equal(signalled('SIGTERM', false, [exit(0, { signal: 'SIGABRT' })]), 134);
  t.equal(signalled('SIGTERM', true, [exit(0, { signal: 'SIGKILL' })]), 137);
});

t.test('errors on their way from a rank to the launcher', async (t) => {
  const dir = t.testdir();
  t.equal(readRankError(dir, 2), null);
  writeRankError(dir, describeError(2, new NdsError('ERR_TENSOR', 'first')));
  writeRankError(dir, describeError(2, new Error('second')));
  t.match(readRankError(dir, 2), { rank: 2, name: 'NdsError', code: 'ERR_TENSOR', message: 'first', exitCode: 65, stack: /end\.test/ });
  const failure = { rank: 1, exitCode: null, signal: 'SIGKILL', code: null, message: null };
  writeFailure(dir, failure);
  t.same(readFailure(dir), failure);
});

t.test('anything can be thrown', async (t) => {
  t.match(describeError(0, 'text'), { name: 'string', code: null, message: 'text', stack: null, exitCode: 1 });
  t.match(describeError(0, null), { name: 'object', message: 'null' });
  t.match(describeError(0, undefined), { message: 'undefined' });
  t.match(describeError(0, Object.create(null)), { message: '[object Object]' });
  t.match(describeError(0, { name: 'NdsError', code: 'ERR_CONFIG' }), { exitCode: 1 }, 'a look-alike is no error of ours');
  t.match(describeError(0, Object.assign(new Error('x'), { code: 'ENOENT' })), { code: 'ENOENT', exitCode: 1 });
});

const output = (change: Partial<RankOutput>): RankOutput => ({
  stderrTail: [],
  outOfMemoryKills: null,
  wasKilledByLauncher: false,
  ...change,
});

function input(change: Partial<ReportInput>): ReportInput {
  return {
    end: { kind: 'failed', root: { rank: 1, exit: null, error: null } },
    exits: [exit(0, { signal: 'SIGTERM' }), exit(1, { exitCode: 1 }), exit(2, { exitCode: 0 })],
    exitCode: 1,
    runId: 'job',
    command: ['a.ts'],
    placeOf: () => ({ node: 0, host: 'box' }),
    errorOf: () => null,
    stateOf: () => null,
    outputOf: () => output({}),
    restarts: [],
    notRestarted: null,
    ...change,
  };
}

const gang = { file: null, numNodes: 1, numRanks: 3, isStderrShown: true };

t.test('the report on the console has at most 15 lines of bearable length', async (t) => {
  const thrown = new Error(Array.from({ length: 40 }, (_, line) => `line ${line} ${'x'.repeat(1000)}`).join('\n'));
  const long = input({
    exits: Array.from({ length: 200 }, (_, rank) => exit(rank, { exitCode: 1 })),
    errorOf: () => describeError(1, thrown),
  });
  const lines = formatReport(buildReport(long), { ...gang, file: 'report.json' });
  t.ok(lines.length <= 15);
  t.ok(lines.every((line) => line.length <= 401));
  t.equal(lines[0], 'rank 1 failed first: exit code 1, on box');
  t.equal(lines.at(-1), '  exit code 1; report in report.json');
  t.match(lines.join('\n'), /at .*end\.test/, 'there is room for the line of the script');
  t.equal(lines.at(-2), '  ended because of it: rank 0 (1), rank 2 (1), rank 3 (1) and 196 more');
});

t.test('memory: known, likely, or not to blame', async (t) => {
  const killed = { exits: [exit(1, { signal: 'SIGKILL' })], exitCode: 137 };
  const memory = (change: Partial<ReportInput>) => {
    const { oomKilled, oomEvidence } = buildReport(input(change)).firstFailure ?? {};
    return [oomKilled, oomEvidence];
  };
  const counted = { outOfMemoryKills: 'oom_kill in memory.events went from 1 to 2' };
  t.same(memory({ ...killed, outputOf: () => output(counted) }), [true, counted.outOfMemoryKills]);
  t.same(memory({ ...killed, outputOf: () => output({ ...counted, wasKilledByLauncher: true }) }), [false, null]);
  t.same(memory(killed), [null, null]);
  t.same(memory({ outputOf: () => output(counted) }), [false, null], 'it ended by itself');
  const heap = 'FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory';
  t.same(memory({ exits: [exit(1, { signal: 'SIGABRT' })], outputOf: () => output({ stderrTail: [heap] }) }), [true, heap]);
});

t.test('two ranks that the kernel killed for memory, and one that its launcher killed', async (t) => {
  const counted = { outOfMemoryKills: 'oom_kill in memory.events went from 0 to 2' };
  const { firstFailure, collateral } = buildReport(
    input({
      exits: [0, 1, 2].map((rank) => exit(rank, { signal: 'SIGKILL' })),
      outputOf: (rank) => output({ ...counted, wasKilledByLauncher: rank === 2 }),
    }),
  );
  t.match(firstFailure, { rank: 1, oomKilled: true, oomEvidence: counted.outOfMemoryKills });
  t.match(collateral, [
    { rank: 0, oomKilled: true },
    { rank: 2, oomKilled: false },
  ]);
});

t.test('without a recorded error the console repeats the end of standard error', async (t) => {
  const lines = formatReport(buildReport(input({ outputOf: () => output({ stderrTail: ['1', '2', '3', '4', '5', '6'] }) })), gang);
  t.same(lines.slice(1, 6), ['  | 2', '  | 3', '  | 4', '  | 5', '  | 6']);
});

t.test('ranks that stay are named', async (t) => {
  const report = buildReport(input({ end: { kind: 'stuck', ranks: [1, 2] }, exitCode: 75 }));
  t.match(report, { firstFailure: null, summary: 'rank 1, 2 still ran long after rank 0 had ended', exitCode: 75 });
});

t.test('one rank says each thing once', async (t) => {
  const lines = (thrown: unknown, how: Partial<RankExit>, place = {}, change: Partial<ReportInput> = {}) => {
    const end = { kind: 'failed', root: { rank: 0, exit: null, error: null } } as const;
    const single = input({ end, exits: [exit(0, how)], errorOf: () => (thrown === null ? null : describeError(0, thrown)), ...change });
    return formatReport(buildReport(single), { file: null, numNodes: 1, numRanks: 1, isStderrShown: true, ...place });
  };
  const mistake = new NdsError('ERR_USAGE', 'Expected x');
  const [message, line, ...rest] = lines(mistake, { exitCode: 64 });
  t.equal(message, 'Expected x [ERR_USAGE]');
  t.match(line, /^ {2}at \/.*end\.test\.[jt]s:\d+:\d+$/);
  t.same(rest, []);
  t.same(lines(mistake, { exitCode: 64 }, { file: 'r.json' }).at(-1), 'report in r.json');
  t.same(lines(new Error('boom'), { exitCode: 1 }), [], 'Node has printed it');
  t.match(lines(new Error('boom'), { exitCode: 1 }, { isStderrShown: false }), ['exit code 1', '  Error: boom', /end\.test/]);
  t.same(lines(null, { exitCode: 7 }, {}, { outputOf: () => output({ stderrTail: ['said'] }) }), ['exit code 7']);
  t.same(lines(null, { exitCode: 7 }, { isStderrShown: false }, { outputOf: () => output({ stderrTail: ['said'] }) }), [
    'exit code 7',
    '  | said',
  ]);
  t.match(lines(null, { signal: 'SIGKILL' }), ['killed by SIGKILL', /when memory runs out/]);
});

t.test('the line of the script', async (t) => {
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const stack = [
    'NdsError: Expected (a) but',
    '    at new Thing (node:internal/x:1:2)',
    `    at async load (file://${root}rank/llm.ts:3:4)`,
    '    at f (/app/node_modules/p/x.js:1:1)',
    '    at async file:///app/my%20script.ts:5:6',
    '    at main (/app/other.ts:7:8)',
  ];
  t.equal(scriptLine(stack.join('\n')), '/app/my script.ts:5:6');
  t.equal(scriptLine([...stack.slice(0, 4), stack[5]].join('\n')), '/app/other.ts:7:8');
  t.equal(scriptLine(stack.slice(0, 4).join('\n')), null);
  t.equal(scriptLine(null), null);
});
