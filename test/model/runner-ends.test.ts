/** Ends of a runner: closed while it waits for other ranks, failing in mid-step, or with its worker thread. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Test, test } from 'tap';
import { addonFolder } from '../../native/load.mjs';
import { packPlan } from '../../protocol/step-plan.ts';
import { native, type Runner } from '../../rank/native.ts';
import type { ProgramSpec } from '../../rank/program-spec.ts';
import { goodPlan, nextTokenProgram, nextTokenShare, submit } from '../helpers/next-token.ts';

const timeouts = { startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 };

/** Returns a function that creates the runners of two ranks that share memory. */
function twoRanks(t: Test, numThreads: number): () => [Runner, Runner] {
  const folder = mkdtempSync(join(tmpdir(), 'nds-runner-'));
  const shmFd = openSync(join(folder, 'shm'), 'w+');
  t.teardown(() => {
    closeSync(shmFd);
    rmSync(folder, { recursive: true });
  });
  const open = (rank: number) =>
    // Two of 64 ranks on the host, so that threads are not pinned.
    native().createRunner({ rank, worldSize: 2, localRank: 0, localWorldSize: 64, shmFd, numThreads, ...timeouts });
  return () => [open(0), open(1)];
}

/** The good program of rank 0, with an additional all-reduce before the gather of its rows. */
function withAllReduce(program: ProgramSpec): ProgramSpec {
  const rows = 'tokens';
  const slice = program.weights.flatMap((weight) => (weight.kind === 'table' ? [weight.slice] : []));
  return {
    ...program,
    weights: [
      ...program.weights,
      { kind: 'linear', pieces: slice, format: 'float32', codes: null, chunkEdges: [0, 32], firstChunk: 0, numChunks: 2 },
    ],
    values: [
      ...program.values,
      { rows, width: 32, type: 'activation' },
      { rows, width: 32, type: 'fp32' },
      { rows, width: 32, type: 'fp32' },
    ],
    ops: [
      ...program.ops.slice(0, 1),
      { op: 'rmsNorm', x: 0, weight: 1, eps: 1e-6, out: 4 },
      { op: 'linear', x: 4, weight: 3, bias: null, partial: true, out: 5 },
      { op: 'allReduce', x: 5, bias: null, out: 6 },
      { op: 'gatherRows', x: 6, out: 1 },
      ...program.ops.slice(2),
    ],
  };
}

test('two ranks take a step', async (t) => {
  const ranks = twoRanks(t, 2)();
  await Promise.all(ranks.map((runner, rank) => runner.load(nextTokenShare(t, rank))));
  const results = await Promise.all(ranks.map((runner) => submit(runner, goodPlan)));
  for (const { tokenIds } of results) t.same([...tokenIds], [8]);
  await Promise.all(ranks.map((runner) => runner.close()));
});

test('closing ends the wait for a rank that never loads', async (t) => {
  const [runner, absent] = twoRanks(t, 1)();
  const loading = runner.load(nextTokenShare(t, 0));
  const rejected = t.rejects(loading, { code: 'ERR_CLOSED' });
  await runner.close();
  await rejected;
  await absent.close();
});

test('closing ends the wait for a rank that never takes the step', async (t) => {
  const ranks = twoRanks(t, 2)();
  await Promise.all(ranks.map((runner, rank) => runner.load(nextTokenShare(t, rank))));
  const steps = [submit(ranks[0], goodPlan), submit(ranks[0], { ...goodPlan, step: 1 })];
  const rejected = steps.map((step) => t.rejects(step, { code: 'ERR_CLOSED' }));
  await ranks[0].close();
  await Promise.all(rejected);
  await ranks[1].close();
});

test('an operator that fails fails the step on all threads', async (t) => {
  const open = twoRanks(t, 4);
  const [first, second] = [withAllReduce(nextTokenShare(t, 0)), nextTokenShare(t, 1)];
  // A thread that notices late is a matter of chance, so there are many rounds.
  for (let round = 0; round < 40; round++) {
    const ranks = open();
    await Promise.all([ranks[0].load(first), ranks[1].load(second)]);
    const steps = await Promise.allSettled(ranks.map((runner) => submit(runner, goodPlan)));
    const codes = steps.map((step) => (step.status === 'rejected' ? step.reason.code : 'resolved'));
    t.same(codes, ['ERR_MISMATCH', 'ERR_MISMATCH'], `round ${round}`);
    await Promise.all(ranks.map((runner) => runner.close()));
  }
});

/** Worker threads that end while their runner is busy. Only they load the addon. */
const endingWorkers = `
const { isMainThread, Worker, workerData } = require('node:worker_threads');
if (isMainThread) {
  const [addon, work] = process.argv.slice(1);
  const next = (left) => {
    if (left > 0) new Worker(process.env.SCRIPT, { eval: true, workerData: { addon, work } }).on('exit', () => next(left - 1));
  };
  next(5);
} else {
  const { options, program, directory, bytes } = JSON.parse(workerData.work);
  const runner = require(workerData.addon).createRunner(options);
  runner.load(program).then(() => {
    for (let step = 0; step < 100; step++) runner.submit(step, Int32Array.from(directory), Uint8Array.from(bytes)).catch(() => {});
    process.exit(0);
  });
}
`;

test('a worker thread of Node may end while its runner is busy', (t) => {
  native();
  const { directory, bytes } = packPlan(goodPlan);
  const options = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 64, shmFd: -1, numThreads: 2, ...timeouts };
  const work = JSON.stringify({ options, program: nextTokenProgram(t), directory: [...directory], bytes: [...bytes] });
  const addon = join(addonFolder(fileURLToPath(new URL('../..', import.meta.url))), 'nds.node');
  const { status, signal, stderr } = spawnSync(process.execPath, ['-e', endingWorkers, addon, work], {
    env: { ...process.env, SCRIPT: endingWorkers },
    encoding: 'utf8',
  });
  t.same({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
  t.end();
});
