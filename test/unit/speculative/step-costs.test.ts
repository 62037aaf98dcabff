/** Costs of a step: learned from noisy sums, growing in rows, and following a machine that slows down. */
import t from 'tap';
import { StepCosts, sweepShapes } from '../../../rank/speculative/policy/step-costs.ts';
import { costShapes, randomReals } from '../../helpers/draft-simulator.ts';

const limits = { maxNumSeqs: 8, maxNumBatchedTokens: 512, numSpeculativeTokens: 8 };

t.test('defined before anything was measured, when nothing is worth a draft', async (t) => {
  const costs = new StepCosts();
  t.same([costs.targetSeconds(2) / costs.targetSeconds(1), costs.draftSeconds(3), costs.draftSeconds(0), costs.hostSeconds], [2, 3, 0, 0]);
});

t.test('without noise, every number of rows that was measured, each pass by itself', async (t) => {
  const costs = new StepCosts();
  const { target, draft } = costShapes.steps;
  for (let repeat = 0; repeat < 5; repeat++) {
    for (let rows = 1; rows <= 9; rows++) {
      costs.observe({ targetRows: rows, targetSeconds: target(rows), draftRows: [rows], draftSeconds: draft(rows), hostSeconds: 0.25 });
    }
  }
  for (let rows = 1; rows <= 9; rows++) {
    t.ok(Math.abs(costs.targetSeconds(rows) - target(rows)) < 1e-9, `target, ${rows} rows`);
    t.ok(Math.abs(costs.draftSeconds(rows) - draft(rows)) < 1e-9, `draft, ${rows} rows`);
  }
  t.equal(costs.hostSeconds, 0.25);
});

t.test('between and beyond what was measured it is a line', async (t) => {
  const costs = new StepCosts();
  for (const rows of [16, 64, 128]) {
    for (let repeat = 0; repeat < 5; repeat++) costs.observe({ targetRows: rows, targetSeconds: 2 + rows, draftRows: [], draftSeconds: 0 });
  }
  for (const rows of [16, 20, 40, 64, 100, 128, 500]) t.ok(Math.abs(costs.targetSeconds(rows) - 2 - rows) < 1e-6, `${rows} rows`);
  t.equal(costs.targetSeconds(1), costs.targetSeconds(16), 'below, nothing is known to be cheaper');
});

for (const [name, shape] of Object.entries(costShapes)) {
  t.test(`${name}: the sweep at start, noisy, and then steps`, async (t) => {
    const random = randomReals(3);
    const noisy = (seconds: number) => seconds * Math.exp(0.1 * random.normal()) * (random.uniform() < 0.02 ? 10 : 1);
    const costs = new StepCosts();
    const run = (numSequences: number, numDrafts: number, catchUpTokens: number) => {
      const draftRows = Array.from({ length: numDrafts }, (_, i) => numSequences * (i === 0 ? catchUpTokens : 1));
      const draftSeconds = draftRows.reduce((sum, rows) => sum + shape.draft(rows), 0);
      const targetRows = numSequences * (numDrafts + 1);
      costs.observe({ targetRows, targetSeconds: noisy(shape.target(targetRows)), draftRows, draftSeconds: noisy(draftSeconds) });
    };
    for (const { numSequences, numDrafts, catchUpTokens } of sweepShapes(limits)) {
      for (let repeat = 0; repeat < 5; repeat++) run(numSequences, numDrafts, catchUpTokens);
    }
    for (let step = 0; step < 1000; step++) run(1 + (step % 8), (step >> 3) % 5, 1);
    for (const rows of [1, 2, 4, 8, 24]) {
      const ratio = costs.targetSeconds(rows) / shape.target(rows);
      t.ok(ratio > 0.92 && ratio < 1.08, `target, ${rows} rows: ${ratio}`);
    }
    for (const rows of [1, 4, 8]) {
      const ratio = costs.draftSeconds(rows) / shape.draft(rows);
      t.ok(ratio > 0.85 && ratio < 1.15, `draft, ${rows} rows: ${ratio}`);
    }
    const shrinks = Array.from({ length: 400 }, (_, i) => i + 1).filter(
      (rows) => costs.targetSeconds(rows + 1) < costs.targetSeconds(rows) || costs.draftSeconds(rows + 1) < costs.draftSeconds(rows),
    );
    t.same(shrinks, [], 'a row more is never cheaper');
  });
}

t.test('what was held up once at first does not matter', async (t) => {
  for (const heldUp of [0, 1, 2, 3, 4]) {
    const costs = new StepCosts();
    for (let i = 0; i < 5; i++) costs.observe({ targetRows: 3, targetSeconds: i === heldUp ? 100 : 1, draftRows: [], draftSeconds: 0 });
    t.ok(Math.abs(costs.targetSeconds(3) - 1) < 1e-9, `measurement ${heldUp}`);
  }
});

t.test('a machine that slows down slows everything, also what is not measured meanwhile', async (t) => {
  const costs = new StepCosts();
  const run = (rows: number, factor: number) =>
    costs.observe({ targetRows: rows, targetSeconds: factor * rows, draftRows: [rows], draftSeconds: 0.1 * factor * rows });
  for (let step = 0; step < 20; step++) for (const rows of [1, 5, 9]) run(rows, 1);
  for (let step = 0; step < 200; step++) run(1, 1.7);
  t.ok(Math.abs(costs.targetSeconds(1) - 1.7) < 0.02);
  const factors = [costs.targetSeconds(9) / 9, costs.targetSeconds(5) / 5, costs.draftSeconds(9) / 0.9];
  for (const factor of factors) t.ok(factor > 1.4 && factor < 1.8, `${factor}`);
});

t.test('the sweep: plain steps, drafts of every depth by octaves and two catch-ups, as far as they fit', async (t) => {
  const shapes = sweepShapes(limits);
  t.same(
    shapes.filter(({ numSequences }) => numSequences === 1),
    [0, 1, 2, 4, 8]
      .map((numDrafts) => ({ numSequences: 1, numDrafts, catchUpTokens: 1 }))
      .concat([32, 256].map((catchUpTokens) => ({ numSequences: 1, numDrafts: 1, catchUpTokens }))),
  );
  t.same([...new Set(shapes.map(({ numSequences }) => numSequences))], [1, 4, 8]);
  for (const { numSequences, numDrafts, catchUpTokens } of sweepShapes({ ...limits, maxNumBatchedTokens: 40 })) {
    t.ok(numSequences * Math.max(numDrafts + 1, catchUpTokens) <= 40);
  }
});
