/**
 * Ranks with different plans, or different tokens: all of them fail in that step, and the error says which rank had
 * what.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import type { StepPlan } from '../../protocol/step-plan.ts';
import { native, type Runner } from '../../rank/native.ts';
import type { ProgramSpec } from '../../rank/program-spec.ts';
import { goodPlan, nextTokenProgram, nextTokenShare, submit, vocabSize } from '../helpers/next-token.ts';

const timeouts = { startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 };

/** Runners in this process that share memory, each with its rank's program. */
async function loadedRanks(t: Test, programs: readonly ProgramSpec[]): Promise<Runner[]> {
  const folder = mkdtempSync(join(tmpdir(), 'nds-runner-'));
  const shmFd = openSync(join(folder, 'shm'), 'w+');
  t.teardown(() => {
    closeSync(shmFd);
    rmSync(folder, { recursive: true });
  });
  const worldSize = programs.length;
  const ranks = programs.map((_, rank) =>
    native().createRunner({ rank, worldSize, localRank: 0, localWorldSize: 64, shmFd, numThreads: 1, ...timeouts }),
  );
  await Promise.all(ranks.map((runner, rank) => runner.load(programs[rank] as ProgramSpec)));
  return ranks;
}

const twoShares = (t: Test) => [nextTokenShare(t, 0), nextTokenShare(t, 1)];

/** The vocabulary over three ranks, none of which is without tokens. */
function threeShares(t: Test): ProgramSpec[] {
  const program = nextTokenProgram(t);
  return [
    [0, 16],
    [16, 32],
    [32, vocabSize],
  ].map(([rowBegin = 0, rowEnd = 0]) => ({
    ...program,
    weights: program.weights.map((weight) => {
      if (weight.kind === 'table') return { ...weight, slice: { ...weight.slice, rowBegin, rowEnd }, firstRow: rowBegin };
      return weight.kind === 'linear' ? { ...weight, pieces: weight.pieces.map((piece) => ({ ...piece, rowBegin, rowEnd })) } : weight;
    }),
    values: program.values.with(3, { rows: 'logitRows', width: rowEnd - rowBegin, type: 'fp32' }),
    ops: program.ops.with(4, { op: 'sample', logits: 3, firstTokenId: rowBegin, numTokenIds: rowEnd - rowBegin }),
  }));
}

/** The step after `goodPlan`, which computes the slot's newest token. */
const nextPlan: StepPlan = {
  ...goodPlan,
  step: 1,
  tokenIds: Int32Array.of(-1),
  cuQueryLens: Int32Array.of(0, 1),
  contextLens: Int32Array.of(4),
  logitRows: Int32Array.of(0),
  admitSlots: new Int32Array(0),
  admitLens: new Int32Array(0),
  admitFloats: new Float32Array(0),
  admitInts: new Int32Array(0),
  admitSeeds: new Uint32Array(0),
};

/** Error code and message of each rank's step, or its tokens. */
async function outcomes(ranks: readonly Runner[], plans: readonly StepPlan[]) {
  const steps = await Promise.allSettled(ranks.map((runner, rank) => submit(runner, plans[rank] as StepPlan)));
  return steps.map((step) => (step.status === 'rejected' ? `${step.reason.code} ${step.reason.message}` : [...step.value.tokenIds]));
}

const different: [name: string, plan: StepPlan][] = [
  ['a seed', { ...goodPlan, admitSeeds: Uint32Array.of(1, 3) }],
  ['a prompt token that changes nothing', { ...goodPlan, tokenIds: Int32Array.of(4, 6, 7) }],
  ['a block', { ...goodPlan, blockTables: Int32Array.of(1) }],
  ['the number of the step', { ...goodPlan, step: 7 }],
];

for (const [name, plan] of different) {
  test(`plans that differ in ${name}`, async (t) => {
    const ranks = await loadedRanks(t, twoShares(t));
    const found = await outcomes(ranks, [goodPlan, plan]);
    const message = /Expected the same plan on every rank but received ([0-9a-f]{16}) on rank 0 and ([0-9a-f]{16}) on rank 1$/;
    for (const [rank, text] of found.entries()) {
      t.match(text, new RegExp(`^ERR_MISMATCH Step ${rank === 0 ? 0 : plan.step}: ${message.source}`));
    }
    const [, first, second] = message.exec(String(found[0])) ?? [];
    t.not(first, second);
    const later = await Promise.allSettled(ranks.map((runner) => submit(runner, nextPlan)));
    t.match(
      later.map((step) => step.status),
      ['rejected', 'rejected'],
      'no step follows',
    );
    await Promise.all(ranks.map((runner) => runner.close()));
  });
}

test('the message names the ranks on each side, and the step', async (t) => {
  const ranks = await loadedRanks(t, threeShares(t));
  t.same(await outcomes(ranks, [goodPlan, goodPlan, goodPlan]), [[8], [8], [8]]);
  const other = { ...nextPlan, admitSlots: Int32Array.of(1), admitLens: Int32Array.of(0), admitFloats: Float32Array.of(0, 1, 0, 0, 0, 1) };
  const odd = { ...other, admitInts: Int32Array.of(0, 0, 3, 0, -1, -1, 0), admitSeeds: Uint32Array.of(1, 2) };
  for (const text of await outcomes(ranks, [nextPlan, odd, nextPlan])) {
    t.match(text, /^ERR_MISMATCH Step 1: Expected the same plan .* on ranks 0, 2 and [0-9a-f]{16} on rank 1$/);
  }
  await Promise.all(ranks.map((runner) => runner.close()));
});

test('equal plans pass, step after step, and all ranks report the same hashes', async (t) => {
  const ranks = await loadedRanks(t, twoShares(t));
  const seen = new Set<string>();
  for (const plan of [goodPlan, nextPlan]) {
    const results = await Promise.all(ranks.map((runner) => submit(runner, plan)));
    const [first, second] = results.map(({ hashes }) => [...hashes].join());
    t.equal(first, second);
    seen.add(String(first));
  }
  t.equal(seen.size, 2, 'each step has its own');
  await Promise.all(ranks.map((runner) => runner.close()));
});

test('one rank reports the hashes that two report, and times on the clock of this process', async (t) => {
  const alone = native().createRunner({
    rank: 0,
    worldSize: 1,
    localRank: 0,
    localWorldSize: 64,
    shmFd: -1,
    numThreads: 1,
    ...timeouts,
  });
  await alone.load(nextTokenProgram(t));
  const pair = await loadedRanks(t, twoShares(t));
  const before = Number(process.hrtime.bigint()) / 1e9;
  const result = await submit(alone, goodPlan);
  const after = Number(process.hrtime.bigint()) / 1e9;
  t.ok(before <= result.startSeconds && result.startSeconds <= result.endSeconds && result.endSeconds <= after);
  const [first] = await Promise.all(pair.map((runner) => submit(runner, goodPlan)));
  t.same(result.hashes, first?.hashes);
  await Promise.all([alone, ...pair].map((runner) => runner.close()));
});
