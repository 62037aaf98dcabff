/** Ranks that die or stop in the middle of a step: requests fail with the cause, the gang ends, nothing is left. */
import { fileURLToPath } from 'node:url';
import { type Test, test } from 'tap';
import { allGone, fixture, Running } from '../launcher/helpers.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));

/** A gang in the middle of its work, and the process ids of its ranks. */
async function atWork(t: Test, numRanks: number, ...options: string[]): Promise<{ running: Running; pids: number[] }> {
  const running = new Running([`--nproc-per-node=${numRanks}`, ...options, fixture('endless.ts'), model]);
  t.teardown(() => running.child.kill('SIGKILL'));
  const pids = await running.ranks(numRanks);
  await running.printed(/working/);
  return { running, pids };
}

async function checkEnd(t: Test, running: Running, pids: readonly number[], code: number): Promise<void> {
  const ended = await running.ended();
  t.equal(ended.code, code, ended.stderr);
  await allGone(pids);
  t.same(running.leftovers(), []);
}

for (const numRanks of [2, 4]) {
  test(`one of ${numRanks} ranks is killed`, async (t) => {
    const { running, pids } = await atWork(t, numRanks);
    process.kill(pids[numRanks - 1] as number, 'SIGKILL');
    await running.printed(/in flight: ERR_PEER_LOST/);
    await running.printed(/later: ERR_PEER_LOST/);
    await checkEnd(t, running, pids, 128 + 9);
  });
}

test('rank 0 is killed', async (t) => {
  const { running, pids } = await atWork(t, 3);
  process.kill(pids[0] as number, 'SIGKILL');
  await checkEnd(t, running, pids, 128 + 9);
});

test('the launcher is killed', async (t) => {
  const { running, pids } = await atWork(t, 3);
  running.child.kill('SIGKILL');
  await allGone(pids);
  await running.ended();
  // Nobody was left to remove the launcher's folder.
  running.leftovers();
});

test('a rank that stops answering ends the gang after --step-timeout', async (t) => {
  const { running, pids } = await atWork(t, 2, '--step-timeout=1');
  process.kill(pids[1] as number, 'SIGSTOP');
  await running.printed(/in flight: ERR_STEP_TIMEOUT/);
  await checkEnd(t, running, pids, 75);
});

test('SIGTERM to the launcher ends a gang at work', async (t) => {
  const { running, pids } = await atWork(t, 2);
  running.child.kill('SIGTERM');
  const ended = await running.ended();
  t.equal(ended.signal, null);
  await allGone(pids);
  t.same(running.leftovers(), []);
});
