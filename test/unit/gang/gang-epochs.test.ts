/** Epochs of a gang, over sockets in this process: which error is a loss, which the end, and what follows a loss. */
import { EventEmitter, once } from 'node:events';
import t, { type Test } from 'tap';
import type { GangInfo } from '../../../protocol/control.ts';
import { NdsError } from '../../../protocol/errors.ts';
import type { FailureRecord } from '../../../protocol/failure.ts';
import type { RankEnv } from '../../../protocol/rank-env.ts';
import type { Control } from '../../../rank/gang/control.ts';
import { FollowerLink } from '../../../rank/gang/follower-link.ts';
import type { GangEpoch } from '../../../rank/gang/gang-epoch.ts';
import { GangEpochs } from '../../../rank/gang/gang-epochs.ts';
import { ReportedError } from '../../../rank/gang/process-group.ts';
import { ownIdentity } from '../../../rank/gang/rank-runner.ts';
import { envOf, makeGang } from '../../helpers/gang-sockets.ts';

const worldSize = 3;
// Each gang of a process listens.
process.setMaxListeners(0);
const failure: FailureRecord = { rank: 1, exitCode: null, signal: 'SIGKILL', code: null, message: null };

/** The launcher's end of rank 0's control socket. */
class FakeControl extends EventEmitter<{ gang: [GangInfo]; lost: [FailureRecord] }> {
  live: GangInfo | null = null;

  begin(info: GangInfo): void {
    this.live = info;
    this.emit('gang', info);
  }

  lose(): void {
    this.live = null;
    this.emit('lost', failure);
  }
}

/** Epochs with a user that notes what happens. `prepare` is called with the number of the preparation. */
function start(t: Test, overrides: Partial<RankEnv> = {}, prepare: (count: number) => Promise<void> = async () => {}) {
  const control = new FakeControl();
  const notes: string[] = [];
  const timeouts = { failureTimeoutMs: 10_000, stepTimeoutMs: 60_000, startupTimeoutMs: 60_000 };
  const place = { localRank: 0, localWorldSize: worldSize, runDir: '/nowhere', shmFd: -1, maxRestarts: 3 };
  const env = { ...envOf(0, worldSize), ...timeouts, ...place, ...overrides } as RankEnv;
  let numPrepared = 0;
  const noted = new EventEmitter();
  const note = (what: string) => {
    notes.push(what);
    noted.emit(what);
  };
  const epochs = new GangEpochs(env, control as unknown as Control, {
    prepare: async () => {
      note('prepare');
      await prepare(numPrepared++);
    },
    onLost: () => note('lost'),
    onResumed: () => note('resumed'),
    onFailed: ({ message }) => note(`failed: ${message}`),
  });
  t.teardown(() => epochs.suspect(new NdsError('ERR_INTERNAL', 'the end of the test')));
  /** Begins an epoch, with its followers unless they never come. */
  const begin = (epoch: number, withFollowers = true) => {
    const gangs = makeGang(t, worldSize, null, epoch);
    control.begin(gangs[0] as GangInfo);
    const links = (withFollowers ? gangs.slice(1) : []).map(
      (gang, i) => new FollowerLink({ env: envOf(i + 1, worldSize), gang, ports: null, identity: ownIdentity(), onLeaderGone: () => {} }),
    );
    t.teardown(() => {
      for (const link of links) link.close();
    });
  };
  return { control, epochs, notes, noted, begin };
}

t.test('an epoch after the other', async (t) => {
  const { control, epochs, notes, noted, begin } = start(t);
  begin(0);
  const first = await epochs.whole();
  control.lose();
  t.match(first.cause, { code: 'ERR_PEER_LOST', message: 'Expected rank 1 to go on but it was ended by SIGKILL' });
  t.ok(epochs.isOpening);
  begin(1);
  const second = await epochs.whole();
  t.not(second, first);
  t.equal(epochs.newest, second);
  // An error of the old one says nothing about the new.
  await epochs.judge(first, new NdsError('ERR_PROTOCOL', 'an answer cut short'));
  t.equal(second.cause, null);
  control.lose();
  const resumed = once(noted, 'resumed');
  // Lost before its followers came, and once more before it was opened.
  begin(2, false);
  await new Promise(setImmediate);
  control.lose();
  begin(3, false);
  control.lose();
  begin(4);
  await resumed;
  t.equal((await epochs.whole()).cause, null);
  t.same(notes, ['prepare', 'lost', 'prepare', 'resumed', 'lost', 'lost', 'lost', 'prepare', 'resumed']);
});

t.test('what is prepared when its ranks are lost is prepared again', async (t) => {
  let onPrepare = () => {};
  const { control, epochs, notes, noted, begin } = start(t, {}, async (count) => {
    if (count > 0) return;
    onPrepare();
    await once(control, 'lost');
    throw new NdsError('ERR_CLOSED', 'in mid-load');
  });
  const preparing = once(noted, 'prepare');
  begin(0);
  await preparing;
  onPrepare = () => t.fail('prepared once');
  setImmediate(() => {
    control.lose();
    begin(1);
  });
  await epochs.whole();
  t.same(notes, ['prepare', 'lost', 'prepare']);
});

t.test('an error that a loss may have caused waits for the launcher', async (t) => {
  for (const [error, waits] of [
    [new NdsError('ERR_CLOSED', 'ended'), true],
    [new NdsError('ERR_STEP_TIMEOUT', 'waited'), true],
    [new NdsError('ERR_PEER_LOST', 'not sent'), true],
    [new ReportedError('ERR_SYSTEM', 'Rank 1: no memory'), true],
    [new ReportedError('ERR_INTERNAL', 'Rank 1: a bug'), true],
    [new ReportedError('ERR_TENSOR', 'Rank 1: no such tensor'), false],
    [new ReportedError('ERR_USAGE', 'Rank 1: many threads'), false],
    [new NdsError('ERR_MISMATCH', 'diverged'), false],
    [new NdsError('ERR_PROTOCOL', 'a gap'), false],
    [new NdsError('ERR_SYSTEM', 'no memory here'), false],
  ] as const) {
    const { control, epochs, begin } = start(t);
    begin(0);
    const epoch: GangEpoch = await epochs.whole();
    const judged = epochs.judge(epoch, error);
    if (!waits) {
      await t.rejects(judged, error);
      t.equal(epoch.cause, error);
      continue;
    }
    t.equal(epochs.failure, null);
    control.lose();
    await judged;
    begin(1);
    await epochs.whole();
  }
});

t.test('without a verdict, the first error is the end', async (t) => {
  const { epochs, notes, begin } = start(t);
  begin(0);
  const epoch = await epochs.whole();
  epochs.suspect(new NdsError('ERR_STEP_TIMEOUT', 'ended'), 1);
  t.equal(epochs.failure, null);
  const end = { code: 'ERR_STEP_TIMEOUT', message: 'ended' };
  await t.rejects(epochs.judge(epoch, new NdsError('ERR_PEER_LOST', 'soon after')), end);
  t.same(notes, ['prepare', 'failed: ended']);
  await t.rejects(epochs.judge(epoch, new NdsError('ERR_PEER_LOST', 'later')), end);
});

t.test('without restarts, only a rank that left a collective waits for its cause', async (t) => {
  for (const code of ['ERR_STEP_TIMEOUT', 'ERR_PEER_LOST', 'ERR_CLOSED'] as const) {
    const { epochs, notes, begin } = start(t, { maxRestarts: 0 });
    begin(0);
    const epoch = await epochs.whole();
    epochs.suspect(new NdsError(code, 'ended'), 1);
    t.equal(epochs.failure === null, code === 'ERR_CLOSED', code);
    // A departure is the loss of a peer, with the exit code of one.
    await epoch.ended();
    t.match(epochs.failure, { code: code === 'ERR_CLOSED' ? 'ERR_PEER_LOST' : code, message: 'ended' });
    t.same(notes, ['prepare', 'failed: ended']);
  }
});

t.test('the end comes while an epoch is awaited or being prepared', async (t) => {
  const { control, epochs, notes, begin } = start(t, {}, async (count) => {
    if (count === 1) throw new NdsError('ERR_MISMATCH', 'another shard');
  });
  begin(0);
  await epochs.whole();
  control.lose();
  begin(1);
  await t.rejects(epochs.whole(), { code: 'ERR_MISMATCH' });
  control.lose();
  t.same(notes, ['prepare', 'lost', 'prepare', 'failed: another shard'], 'nothing follows the end');
});
