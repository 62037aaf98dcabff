/** What a runner writes into the state memory, as the launcher reads it. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { hasMoved, type RankState, stateText } from '../../launcher/rank-state.ts';
import { StateMemory } from '../../launcher/state-memory.ts';
import { native, type Runner } from '../../rank/native.ts';
import type { ProgramSpec } from '../../rank/program-spec.ts';
import { goodPlan, nextTokenProgram, nextTokenShare, submit } from '../helpers/next-token.ts';

/** Two ranks' runners, and a function that reads their states. */
function twoRanks(t: Test): { runners: [Runner, Runner]; read: (rank: number) => RankState } {
  const folder = mkdtempSync(join(tmpdir(), 'nds-runner-'));
  const shmFd = openSync(join(folder, 'shm'), 'w+');
  const memory = StateMemory.open(2);
  t.teardown(() => {
    closeSync(shmFd);
    memory.close();
    rmSync(folder, { recursive: true });
  });
  const open = (rank: number): Runner =>
    native().createRunner({
      rank,
      worldSize: 2,
      localRank: rank,
      localWorldSize: 64,
      shmFd,
      stateFd: memory.fd,
      numThreads: 2,
      startupTimeoutMs: 600_000,
      stepTimeoutMs: 600_000,
    });
  return { runners: [open(0), open(1)], read: (rank) => memory.read({ rank, localRank: rank, pid: process.pid }) };
}

/** Waits until a rank waits for another; only the test's timeout limits the wait. */
async function waiting(read: () => RankState): Promise<RankState> {
  while (read().waitsFor === null) await new Promise((resolve) => setTimeout(resolve, 5));
  return read();
}

/** The program with its first operator in a layer. */
function inLayer(program: ProgramSpec, layer: number): ProgramSpec {
  const [first, ...rest] = program.ops;
  return first === undefined ? program : { ...program, ops: [{ ...first, group: { name: 'a layer', layer } }, ...rest] };
}

test('a rank tells what it does, and for whom it waits', async (t) => {
  const { runners, read } = twoRanks(t);
  t.equal(read(0).phase, 'starting');
  const loading = runners[0].load(nextTokenShare(t, 0));
  t.equal(stateText(await waiting(() => read(0)), null), 'rank 0 waits in all-gather, loading, for rank 1');
  t.equal(read(1).phase, 'starting', 'each rank has a block of its own');
  await Promise.all([loading, runners[1].load(inLayer(nextTokenShare(t, 1), 3))]);
  t.same([stateText(read(0), null), stateText(read(1), null)], ['rank 0 is idle', 'rank 1 is idle']);
  const step = submit(runners[0], goodPlan);
  const stuck = await waiting(() => read(0));
  t.equal(stateText(stuck, 0), 'rank 0 waits in row exchange of embedding, step 0, for rank 1');
  t.equal(stateText(read(1), 0), 'rank 1 has not begun step 0');
  t.notOk(hasMoved(stuck, read(0)), 'a wait is no progress');
  await Promise.all([step, submit(runners[1], goodPlan)]);
  t.ok(hasMoved(stuck, read(0)));
  t.same([stateText(read(0), null), stateText(read(1), null)], ['rank 0 is idle after step 0', 'rank 1 is idle after step 0']);
  const again = submit(runners[1], { ...goodPlan, step: 7 });
  t.equal(stateText(await waiting(() => read(1)), 7), 'rank 1 waits in row exchange of layer 3, step 7, for rank 0');
  const failed = { ...goodPlan, step: 8, slots: Int32Array.of(1000) };
  await t.rejects(submit(runners[0], failed), { code: 'ERR_PLAN' });
  t.match(read(0), { phase: 'idle', failedStep: 8 });
  await Promise.all([...runners.map((runner) => runner.close()), t.rejects(again)]);
  t.match(read(1), { phase: 'idle', failedStep: 7, waitsFor: null });
});

test('steps follow each other, and progress is counted', async (t) => {
  const memory = StateMemory.open(1);
  t.teardown(() => memory.close());
  const place = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 64, shmFd: -1, numThreads: 1 };
  const runner = native().createRunner({ ...place, stateFd: memory.fd, startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 });
  const read = () => memory.read({ rank: 0, localRank: 0, pid: null });
  await runner.load(nextTokenProgram(t));
  const loaded = read();
  await submit(runner, goodPlan);
  const { progress, operator } = read();
  // The norm works on the rows that were gathered, in one stage with their gathering.
  const numStages = nextTokenProgram(t).ops.length - 1;
  t.equal(progress - loaded.progress, numStages + 3, 'begin, stages, agreement, end');
  t.equal(operator, 'agreement');
  await runner.close();
  memory.reset(0);
  t.match(read(), { phase: 'starting', step: null, progress: 0 });
});

test('a file that is too short is refused', async (t) => {
  const memory = StateMemory.open(1);
  t.teardown(() => memory.close());
  ftruncateSync(memory.fd, 255);
  const place = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 1, shmFd: -1, numThreads: 1 };
  const open = (stateFd: number) => native().createRunner({ ...place, stateFd, startupTimeoutMs: 1000, stepTimeoutMs: 1000 });
  t.throws(() => open(memory.fd), { code: 'ERR_SYSTEM', message: /256 bytes for the rank's state/ });
  t.throws(() => open(1000), { code: 'ERR_SYSTEM' });
});
