/** How a job of any number of nodes starts and ends: which failure counts, signals, lost nodes, hangs. */
import t from 'tap';
import type { RankState } from '../../../launcher/rank-state.ts';
import type { Verdict } from '../../../launcher/watchdog.ts';
import { error, FakeJob } from '../../helpers/fake-agents.ts';
import { idle } from '../../helpers/rank-states.ts';

/** Every order of some things. */
function orders<T>(things: readonly T[]): T[][] {
  if (things.length === 0) return [[]];
  return things.flatMap((first, index) => orders(things.toSpliced(index, 1)).map((rest) => [first, ...rest]));
}

t.test('one node: prepare, start, end', async (t) => {
  const job = new FakeJob(1, 2);
  t.same(
    job.sent.map(({ command }) => command),
    [
      { type: 'prepare', epoch: 0 },
      { type: 'start', epoch: 0, runId: 'job', keepsRankZero: false, nodes: null },
    ],
  );
  job.exit(0, 0);
  t.equal(job.end, null);
  job.exit(1, 0);
  t.same(job.end, { exitCode: 0, report: null });
  t.same(
    job.commands('ended').map(({ rank }) => rank),
    [0, 1],
  );
});

t.test('ranks start when every node is prepared, with the addresses and keys of all', async (t) => {
  for (const order of orders([0, 1, 2])) {
    const job = new FakeJob(3, 2, {}, [0, 1, 2]);
    for (const node of order) {
      t.same(job.commands('start'), []);
      job.prepared(node, 0);
    }
    const starts = job.commands('start');
    t.same(
      starts.map(({ node }) => node),
      [0, 1, 2],
    );
    t.same(starts[2]?.nodes, {
      addresses: ['10.0.0.0', '10.0.0.1', '10.0.0.2'],
      publicKeys: ['0/0/0', '0/0/1', '0/1/0', '0/1/1', '0/2/0', '0/2/1'],
    });
    for (const node of order) for (const local of [1, 0]) job.exit(2 * node + local, 0);
    t.same(job.end, { exitCode: 0, report: null });
    t.equal(job.commands('finish').length, 3, 'every node learns the end');
  }
});

t.test('the cause is the same in whatever order the ends arrive', async (t) => {
  const ends: Record<number, [how: number, code: string | null]> = { 0: [69, 'ERR_PEER_LOST'], 2: [42, null], 3: [69, 'ERR_PEER_LOST'] };
  for (const order of orders([0, 2, 3])) {
    const job = new FakeJob(2, 2);
    for (const rank of order) {
      const [how, code] = ends[rank] as [number, string | null];
      job.exit(rank, how, code === null ? null : error(rank, code));
      job.clock.pass(10);
    }
    job.clock.pass(50);
    t.match(
      job.commands('stop').map(({ failure }) => failure?.rank),
      [2, 2],
      String(order),
    );
    t.equal(job.end, null, 'one rank still runs');
    job.exit(1, 'SIGTERM');
    t.match(job.end, { exitCode: 42, report: { summary: 'rank 2 failed first: exit code 42', host: 'host1', node: 1 } });
    t.match(job.end?.report?.firstFailure, { rank: 2, node: 1, host: 'host1', stderrTail: ['tail of 2'] });
    t.same(job.end?.report?.collateral.map(({ rank }) => rank).sort(), [0, 1, 3]);
  }
});

t.test("nodes' clocks may differ", async (t) => {
  for (const clockError of [-3_600_000, 3_600_000]) {
    const job = new FakeJob(2, 1);
    job.clockError.set(1, clockError);
    job.exit(0, 5);
    job.clock.pass(20);
    job.exit(1, 6);
    job.clock.pass(50);
    t.match(job.end, { exitCode: 5, report: { firstFailure: { rank: 0 } } });
  }
});

t.test('a recorded error counts before its exit, on other nodes too', async (t) => {
  const job = new FakeJob(2, 1);
  job.clockError.set(1, -5000);
  const record = { ...error(1, 'ERR_CONFIG'), timestamp: job.timeOn(1), exitCode: 65 };
  job.clock.pass(5);
  job.exit(0, 1);
  job.errors.push(record);
  job.clock.pass(50);
  t.match(job.commands('stop')[0]?.failure, { rank: 1, code: 'ERR_CONFIG' });
  job.exit(1, 'SIGTERM');
  t.equal(job.end?.exitCode, 65, 'we were faster than its exit');
});

t.test('a node that does not say what it recorded delays the verdict by a second', async (t) => {
  const job = new FakeJob(2, 1);
  job.silent.add(1);
  job.exit(0, 1);
  job.clock.pass(60);
  t.same(job.commands('stop'), []);
  job.clock.pass(1000);
  t.equal(job.commands('stop').length, 2);
});

t.test('the end of rank 0 leaves the others time', async (t) => {
  const job = new FakeJob(2, 1);
  job.exit(0, 0);
  job.clock.pass(24_999);
  t.same(job.commands('stop'), []);
  job.clock.pass(1);
  t.match(job.commands('stop'), [{ failure: null }, { failure: null }]);
  job.exit(1, 'SIGTERM');
  t.match(job.end, { exitCode: 75, report: { summary: 'rank 1 still ran long after rank 0 had ended', firstFailure: null } });
});

t.test('stop signals', async (t) => {
  const job = new FakeJob(2, 1);
  job.emit(0, { type: 'signalled', signal: 'SIGTERM' });
  job.emit(1, { type: 'signalled', signal: 'SIGTERM' });
  t.same(
    job.commands('signal').map(({ node, signal }) => [node, signal]),
    [
      [0, 'SIGTERM'],
      [1, 'SIGTERM'],
    ],
    'Slurm signals every node once',
  );
  t.match(job.commands('notice'), [{ node: 1, lines: ['node 0 (host0) ends the job: it received SIGTERM'] }], 'other nodes learn why');
  job.exit(0, 'SIGTERM');
  job.emit(1, { type: 'signalled', signal: 'SIGTERM' });
  t.same(
    job
      .commands('signal')
      .slice(2)
      .map(({ signal }) => signal),
    ['SIGKILL', 'SIGKILL'],
    "a node's second signal",
  );
  job.exit(1, 'SIGKILL');
  t.same(job.end, { exitCode: 137, report: null });

  const late = new FakeJob(1, 1);
  late.emit(0, { type: 'signalled', signal: 'SIGINT' });
  late.clock.pass(25_000);
  t.same(
    late.commands('signal').map(({ signal }) => signal),
    ['SIGINT', 'SIGKILL'],
  );
  late.exit(0, 'SIGKILL');
  t.equal(late.end?.exitCode, 130);

  const unread = new FakeJob(1, 1);
  unread.emit(0, { type: 'signalled', signal: 'SIGPIPE' });
  unread.clock.pass(3000);
  t.same(
    unread.commands('signal').map(({ signal }) => signal),
    ['SIGTERM', 'SIGKILL'],
    'as after a failure',
  );
  unread.exit(0, 'SIGKILL');
  t.equal(unread.end?.exitCode, 141);

  const state = new FakeJob(2, 1);
  for (let i = 0; i < 3; i++) state.emit(1, { type: 'signalled', signal: 'SIGUSR2' });
  t.same(
    state.commands('signal').map(({ signal }) => signal),
    Array(6).fill('SIGUSR2'),
    'stops nothing',
  );
});

t.test('a signal before the ranks have started ends the job', async (t) => {
  const job = new FakeJob(2, 1, {}, [1]);
  job.emit(1, { type: 'signalled', signal: 'SIGINT' });
  t.same(job.end, { exitCode: 130, report: null });
  job.prepared(1, 0);
  t.same(job.commands('start'), []);
});

t.test('a signal after a failure does not change the exit code', async (t) => {
  const job = new FakeJob(1, 1);
  job.exit(0, 3);
  job.emit(0, { type: 'signalled', signal: 'SIGTERM' });
  job.clock.pass(50);
  t.equal(job.end?.exitCode, 3);
});

t.test('a lost node ends the job and is named', async (t) => {
  const job = new FakeJob(3, 1);
  job.coordinator.nodeLost(2, 'it was silent for 10 s');
  t.match(
    job.commands('stop').map(({ node, failure }) => [node, failure?.rank, failure?.code]),
    [
      [0, 2, 'ERR_PEER_LOST'],
      [1, 2, 'ERR_PEER_LOST'],
    ],
  );
  job.exit(0, 69, error(0, 'ERR_PEER_LOST'));
  job.exit(1, 'SIGTERM');
  t.match(job.end, {
    exitCode: 69,
    report: { summary: 'node 2 at 10.0.0.2 was lost: it was silent for 10 s', node: 2, firstFailure: null },
  });
  t.equal(job.commands('finish').length, 2);
});

t.test('what other ranks notice of a lost node is not the cause, in whatever order', async (t) => {
  for (const delayMs of [0, 40, 60, 9000]) {
    const job = new FakeJob(2, 1);
    job.silent.add(1);
    job.exit(0, 69, error(0, 'ERR_PEER_LOST'));
    job.clock.pass(delayMs);
    job.coordinator.nodeLost(1, 'it was silent');
    t.match(job.end, { exitCode: 69, report: { summary: /^node 1 .* was lost/ } }, `${delayMs} ms`);
  }
  const failed = new FakeJob(2, 1);
  failed.exit(0, 7);
  failed.coordinator.nodeLost(1, 'it was silent');
  failed.clock.pass(50);
  t.equal(failed.end?.exitCode, 7, 'a failure of its own came first');
});

t.test('a node that is lost while it prepares', async (t) => {
  const job = new FakeJob(2, 1, { maxRestarts: 1 });
  job.silent.add(1);
  job.exit(1, 1);
  job.clock.pass(5000);
  t.equal(job.commands('prepare').length, 4);
  t.equal(job.commands('start').length, 2, 'the second epoch waits');
  job.coordinator.nodeLost(1, 'it was silent');
  job.exit(0, 'SIGTERM', null, 1);
  t.equal(job.end?.exitCode, 69);
});

t.test('a node that cannot do what it is told ends the job with its text', async (t) => {
  const full = { type: 'failed', code: 'ERR_SYSTEM', message: 'Expected 1.0 MiB but received ENOSPC' } as const;
  const end = { exitCode: 70, report: { summary: 'node 1 could not go on: Expected 1.0 MiB but received ENOSPC [ERR_SYSTEM]', node: 1 } };
  const opening = new FakeJob(3, 2, { maxRestarts: 3 }, [1]);
  opening.emit(1, { ...full, running: [] });
  t.same(opening.commands('start'), []);
  t.match(opening.end, { ...end, report: { ...end.report, host: '10.0.0.1', firstFailure: null } });
  t.equal(opening.commands('finish').length, 3);

  const starting = new FakeJob(2, 2);
  starting.emit(1, { ...full, running: [2] });
  t.match(starting.commands('stop'), [
    { node: 0, failure: { rank: 2, code: 'ERR_SYSTEM', message: full.message } },
    { node: 1, keepsRankZero: false },
  ]);
  for (const rank of [0, 1]) starting.exit(rank, 'SIGTERM');
  t.equal(starting.end, null, 'a rank of the node runs');
  starting.emit(1, { ...full, message: 'what else it could not do', running: [2] });
  starting.exit(2, 'SIGTERM');
  t.match(starting.end, end);

  const failed = new FakeJob(2, 1);
  failed.exit(0, 7);
  failed.emit(1, { ...full, running: [1] });
  failed.clock.pass(50);
  failed.exit(1, 'SIGTERM');
  t.equal(failed.end?.exitCode, 7, 'a failure of a rank came first');
});

t.test('a hang: a stall is told on every node, then the rank that holds the others up is the cause', async (t) => {
  const state = (rank: number): RankState => ({ ...idle, rank, phase: 'step', step: 7, progress: 1 });
  const verdict = {
    rank: 1,
    culprits: [1],
    step: 7,
    states: [state(0), state(1)],
    message: 'Expected progress in step 7',
    lines: ['no progress', '  rank 1 is stopped'],
  };
  let kind: Verdict['kind'] | null = null;
  const watchdog = { reset: () => {}, take: () => kind && { kind, ...verdict } };
  const job = new FakeJob(2, 1, { watchdog });
  job.states.push(state(0), state(1));
  const tell = () => job.emit(1, { type: 'states', epoch: 0, states: [state(1)] });
  tell();
  t.same(job.notices, []);
  kind = 'stalled';
  tell();
  t.same(
    job.commands('notice').map(({ node }) => node),
    [0, 1],
  );
  kind = 'hung';
  tell();
  t.match(job.commands('stop')[0]?.failure, { rank: 1, code: 'ERR_STEP_TIMEOUT', message: 'Expected progress in step 7' });
  job.exit(0, 'SIGTERM');
  job.exit(1, 'SIGKILL');
  t.match(job.end, {
    exitCode: 75,
    report: {
      summary: 'rank 1 hung',
      firstFailure: { rank: 1, phase: 'step', step: 7, oomKilled: false, error: { code: 'ERR_STEP_TIMEOUT' } },
    },
  });
});

t.test('what ranks publish reaches every node, in its epoch', async (t) => {
  const job = new FakeJob(2, 1);
  job.emit(1, { type: 'publish', epoch: 0, key: 'port', value: '1' });
  job.emit(1, { type: 'publish', epoch: 3, key: 'port', value: '2' });
  t.same(
    job.commands('published').map(({ node, value }) => [node, value]),
    [
      [0, '1'],
      [1, '1'],
    ],
  );
});
