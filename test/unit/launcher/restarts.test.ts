/** Restarts: which failures are followed by one, of which ranks, after how long. */
import t, { type Test } from 'tap';
import { RestartPolicy } from '../../../launcher/restart-policy.ts';
import type { Suspect } from '../../../launcher/root-cause.ts';
import { error, FakeJob } from '../../helpers/fake-agents.ts';

const crash: Suspect = { rank: 1, exit: null, error: null };
const policy = (maxRestarts: number, restartBackoffMs = 1000) => new RestartPolicy({ maxRestarts, restartBackoffMs });

t.test('backoff doubles up to 30 s, and ten healthy minutes forgive', async (t) => {
  const used = policy(8);
  const next = () => {
    used.started();
    used.ready();
    const decision = used.decide(crash);
    return decision.isDue ? [decision.number, decision.delayMs] : decision.reason;
  };
  const delays = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000];
  for (const [index, delayMs] of delays.entries()) t.same(next(), [index + 1, delayMs]);
  t.equal(next(), 'restart 8 of 8 was the last');
  used.forgive();
  t.same(next(), [1, 1000]);
});

t.test('classes of failures', async (t) => {
  const decide = (failure: Partial<Suspect>) => policy(3).decide({ ...crash, ...failure });
  for (const code of ['ERR_USAGE', 'ERR_NOT_FOUND', 'ERR_CONFIG', 'ERR_TENSOR', 'ERR_MISMATCH']) {
    t.same(decide({ error: error(1, code) }), { isDue: false, reason: 'the error would come again' }, code);
  }
  for (const code of ['ERR_SYSTEM', 'ERR_PEER_LOST', 'ERR_STEP_TIMEOUT', 'ERR_CUDA']) t.ok(decide({ error: error(1, code) }).isDue, code);
  t.ok(decide({ error: error(1, 'ERR_CONFIG', 'Error') }).isDue, 'a look-alike of the user');
  const notStarted = (code: string) => ({
    exit: { rank: 1, pid: null, exitCode: null, signal: null, spawnError: { code, message: 'x' }, time: 0 },
  });
  t.notOk(decide(notStarted('ENOENT')).isDue);
  t.ok(decide(notStarted('EAGAIN')).isDue);
  t.same(policy(0).decide(crash), { isDue: false, reason: '' });
});

t.test('a gang that was never ready is started once more', async (t) => {
  const unready = policy(9);
  unready.started();
  t.ok(unready.decide(crash).isDue);
  unready.started();
  t.same(unready.decide(crash), { isDue: false, reason: '2 times in a row it ended before a model was loaded' });
  const once = policy(9);
  for (const isReady of [false, true, false, true, false]) {
    once.started();
    if (isReady) once.ready();
    t.ok(once.decide(crash).isDue, 'not twice in a row');
  }
});

/** Ends ranks that were told to stop. */
function stopFollowers(job: FakeJob, ranks: readonly number[]): void {
  for (const rank of ranks) job.exit(rank, 'SIGTERM');
}

t.test('a lost follower: the others start anew and rank 0 goes on', async (t) => {
  const job = new FakeJob(2, 2, { maxRestarts: 2 });
  job.emit(0, { type: 'ready', epoch: 0, rank: 0 });
  job.exit(3, 42);
  job.clock.pass(50);
  t.match(job.commands('stop'), [
    { node: 0, epoch: 0, keepsRankZero: true, failure: { rank: 3, exitCode: 42 } },
    { node: 1, epoch: 0, keepsRankZero: true },
  ]);
  t.match(job.notices, ['rank 3 was lost (exit code 42): restart 1 of 2 in 1 s, rank 0 goes on and the others start anew']);
  stopFollowers(job, [1, 2]);
  t.equal(job.commands('prepare').length, 2);
  job.clock.pass(999);
  t.equal(job.commands('prepare').length, 2, 'backs off');
  job.clock.pass(1);
  const [, , first, second] = job.commands('start');
  t.match(
    [first, second],
    [
      { node: 0, epoch: 1, keepsRankZero: true },
      { node: 1, epoch: 1, keepsRankZero: true },
    ],
  );
  t.same(first?.nodes?.publicKeys, ['1/0/0', '1/0/1', '1/1/0', '1/1/1'], 'new keys');

  job.exit(1, 9, null, 0);
  job.emit(1, { type: 'ready', epoch: 0, rank: 0 });
  job.emit(1, { type: 'publish', epoch: 0, key: 'a', value: 'b' });
  job.clock.pass(1000);
  t.same([job.commands('stop').length, job.commands('published').length], [2, 0], 'what belongs to an older epoch is dropped');
  for (const rank of [0, 1, 2, 3]) job.exit(rank, 0);
  t.same(job.end, { exitCode: 0, report: null });
});

t.test('the last failure is reported with those before it', async (t) => {
  const job = new FakeJob(1, 2, { maxRestarts: 1, restartBackoffMs: 0 });
  for (const [how, epoch] of [
    [5, 0],
    ['SIGSEGV', 1],
  ] as const) {
    job.emit(0, { type: 'ready', epoch, rank: 0 });
    job.exit(1, how);
    job.clock.pass(50);
  }
  job.exit(0, 'SIGTERM');
  t.match(job.end, {
    exitCode: 139,
    report: {
      summary: 'rank 1 failed first: killed by SIGSEGV',
      restarts: [{ rank: 1, cause: 'exit code 5' }],
      notRestarted: 'restart 1 of 1 was the last',
    },
  });
});

t.test('the loss of rank 0 starts the whole gang anew', async (t) => {
  const job = new FakeJob(1, 2, { maxRestarts: 1, restartBackoffMs: 0 });
  job.exit(0, 'SIGKILL');
  job.clock.pass(50);
  t.match(job.commands('stop'), [{ keepsRankZero: false }]);
  t.same(job.notices, ['rank 0 was lost (killed by SIGKILL): restart 1 of 1 in 0 s, the whole gang starts its script again']);
  job.exit(1, 'SIGTERM');
  job.clock.pass(0);
  t.match(job.commands('start')[1], { epoch: 1, keepsRankZero: false });
  for (const rank of [0, 1]) job.exit(rank, 0);
  t.equal(job.end?.exitCode, 0);
});

/** A job of two ranks that lost rank 1, in one of the states before its restart. */
function lostFollower(state: 'regrouping' | 'backing off' | 'preparing', change: object = {}): FakeJob {
  const job = new FakeJob(2, 2, { maxRestarts: 3, ...change });
  job.exit(1, 42);
  job.clock.pass(50);
  if (state !== 'regrouping') stopFollowers(job, [2, 3]);
  if (state !== 'preparing') return job;
  job.silent.add(1);
  job.clock.pass(1000);
  job.epoch = 1;
  return job;
}

const states = ['regrouping', 'backing off', 'preparing'] as const;
const finish = (job: FakeJob, state: (typeof states)[number]) => state === 'regrouping' && stopFollowers(job, [2, 3]);

t.test('rank 0 ends well before the others are back: the job is done', async (t) => {
  for (const state of states) {
    const job = lostFollower(state);
    job.exit(0, 0);
    finish(job, state);
    t.same(job.end, { exitCode: 0, report: null }, state);
    job.clock.pass(60_000);
    if (state === 'preparing') job.prepared(1, 1);
    t.equal(job.commands('start').length, 2, 'no restart follows');
  }
});

t.test('rank 0 ends because of the lost follower: one restart, of the whole gang', async (t) => {
  for (const state of states) {
    const job = lostFollower(state);
    job.exit(0, 69, error(0, 'ERR_PEER_LOST'));
    finish(job, state);
    job.silent.clear();
    job.clock.pass(1000);
    t.match(job.commands('start').slice(2), [{ keepsRankZero: false }, { keepsRankZero: false }], state);
    t.equal(job.notices.filter((line) => line.includes('restart')).length, 1);
    t.equal(job.end, null);
  }
});

t.test('rank 0 fails by itself before the others are back: another restart', async (t) => {
  for (const state of states) {
    const job = lostFollower(state);
    job.emit(0, { type: 'ready', epoch: job.epoch, rank: 0 });
    job.exit(0, 7);
    finish(job, state);
    job.silent.clear();
    job.clock.pass(2000);
    t.match(job.commands('start').slice(2), [{ keepsRankZero: false }, { keepsRankZero: false }], state);
    t.match(job.notices, [/restart 1 of 3/, /^rank 0 was lost \(exit code 7\): restart 2 of 3 in 2 s/]);
  }
});

t.test('a second follower fails while the others are stopped: still one restart', async (t) => {
  const job = lostFollower('regrouping');
  job.exit(2, 'SIGSEGV');
  job.exit(3, 'SIGTERM');
  job.clock.pass(1000);
  t.match(job.commands('start').slice(2), [{ epoch: 1, keepsRankZero: true }, { epoch: 1 }]);
  t.equal(job.notices.length, 1);
});

t.test('a node that is lost, or fails, before the others are back ends the job', async (t) => {
  for (const state of states) {
    for (const how of ['lost', 'failed'] as const) {
      const job = lostFollower(state);
      if (how === 'lost') job.coordinator.nodeLost(1, 'its launcher ended the connection');
      else job.emit(1, { type: 'failed', code: 'ERR_SYSTEM', message: 'Expected room', running: state === 'regrouping' ? [2, 3] : [] });
      t.match(job.commands('stop').at(-1), { keepsRankZero: false, failure: { rank: 2 } }, 'rank 0 too');
      if (how === 'failed') finish(job, state);
      job.exit(0, 'SIGTERM');
      t.equal(job.end?.exitCode, how === 'lost' ? 69 : 70, state);
      job.clock.pass(60_000);
      t.equal(job.commands('start').length, 2);
    }
  }
});

async function signalled(t: Test, state: (typeof states)[number]): Promise<void> {
  const job = lostFollower(state);
  job.emit(0, { type: 'signalled', signal: 'SIGTERM' });
  t.same(
    job.commands('signal').map(({ signal }) => signal),
    ['SIGTERM', 'SIGTERM'],
  );
  job.exit(0, 'SIGTERM');
  finish(job, state);
  t.same(job.end, { exitCode: 42, report: null }, state);
  job.clock.pass(60_000);
  t.equal(job.commands('start').length, 2);
}

t.test('a stop signal before the others are back ends the job', async (t) => {
  for (const state of states) await signalled(t, state);
});

t.test('nothing is restarted after a stop signal, or after the good end of rank 0', async (t) => {
  const stopped = new FakeJob(1, 2, { maxRestarts: 3 });
  stopped.exit(1, 42);
  stopped.emit(0, { type: 'signalled', signal: 'SIGTERM' });
  stopped.clock.pass(50);
  stopped.exit(0, 'SIGTERM');
  t.equal(stopped.end?.exitCode, 42);
  const done = new FakeJob(1, 2, { maxRestarts: 3 });
  done.exit(0, 0);
  done.exit(1, 4);
  done.clock.pass(50);
  t.match(done.end, { exitCode: 4, report: { notRestarted: null } });
});

t.test('a follower that ends well is no failure', async (t) => {
  const job = new FakeJob(1, 3, { maxRestarts: 3 });
  job.exit(1, 0);
  job.clock.pass(1000);
  t.same(job.commands('stop'), []);
  job.exit(2, 1);
  job.clock.pass(50 + 1000);
  t.match(job.commands('start')[1], { epoch: 1, keepsRankZero: true }, 'but starts anew with the others');
});

t.test('a failure after ten healthy minutes counts as the first', async (t) => {
  const job = new FakeJob(1, 2, { maxRestarts: 1 });
  for (let epoch = 0; epoch < 3; epoch++) {
    job.emit(0, { type: 'ready', epoch, rank: 0 });
    job.clock.pass(600_000);
    job.exit(1, 1);
    job.clock.pass(50 + 1000);
  }
  t.equal(job.commands('start').length, 4);
  t.ok(job.notices.every((line) => line.includes('restart 1 of 1 in 1 s')));
});
