/** Costs of a step: learned from noisy sums, increasing with rows, and following a machine that slows down. */
import t from 'tap';
import { StepCosts } from '../../../rank/speculative/policy/step-costs.ts';
import { sweepShapes } from '../../../rank/speculative/sweep.ts';
import { costShapes, randomReals } from '../../helpers/draft-simulator.ts';

const passOf = (rows: number) => ({ rows, contextTokens: 0, draftContextTokens: 0 });
const limits = { maxNumSeqs: 8, maxNumBatchedTokens: 512, numSpeculativeTokens: 8 };

t.test('defined before anything was measured, when nothing is worth a draft', async (t) => {
  const costs = new StepCosts();
  t.same(
    [
      costs.target.rowSeconds(2) / costs.target.rowSeconds(1),
      costs.draft.rowSeconds(3),
      costs.draft.rowSeconds(0),
      costs.hostSeconds(false),
    ],
    [2, 3, 0, 0],
  );
});

t.test('without noise, every number of rows that was measured, each pass by itself', async (t) => {
  const costs = new StepCosts();
  const { target, draft } = costShapes.steps;
  for (let repeat = 0; repeat < 5; repeat++) {
    for (let rows = 1; rows <= 9; rows++) {
      costs.observe({
        target: passOf(rows),
        targetSeconds: target(rows),
        draftPasses: [passOf(rows)],
        draftSeconds: draft(rows),
        hostSeconds: 0.25,
      });
    }
  }
  for (let rows = 1; rows <= 9; rows++) {
    t.ok(Math.abs(costs.target.rowSeconds(rows) - target(rows)) < 1e-9, `target, ${rows} rows`);
    t.ok(Math.abs(costs.draft.rowSeconds(rows) - draft(rows)) < 1e-9, `draft, ${rows} rows`);
  }
  t.equal(costs.hostSeconds(false), 0.25);
});

t.test('between and beyond what was measured it is a line', async (t) => {
  const costs = new StepCosts();
  for (const rows of [16, 64, 128]) {
    for (let repeat = 0; repeat < 5; repeat++)
      costs.observe({ target: passOf(rows), targetSeconds: 2 + rows, draftPasses: [], draftSeconds: 0 });
  }
  for (const rows of [16, 20, 40, 64, 100, 128, 500]) t.ok(Math.abs(costs.target.rowSeconds(rows) - 2 - rows) < 1e-6, `${rows} rows`);
  t.equal(costs.target.rowSeconds(1), costs.target.rowSeconds(16), 'below, nothing is known to be cheaper');
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
      costs.observe({
        target: passOf(targetRows),
        targetSeconds: noisy(shape.target(targetRows)),
        draftPasses: draftRows.map((rows) => passOf(rows)),
        draftSeconds: noisy(draftSeconds),
      });
    };
    for (const { numSequences, numDrafts, catchUpTokens } of sweepShapes(limits)) {
      for (let repeat = 0; repeat < 5; repeat++) run(numSequences, numDrafts, catchUpTokens);
    }
    for (let step = 0; step < 1000; step++) run(1 + (step % 8), (step >> 3) % 5, 1);
    for (const rows of [1, 2, 4, 8, 24]) {
      const ratio = costs.target.rowSeconds(rows) / shape.target(rows);
      t.ok(ratio > 0.92 && ratio < 1.08, `target, ${rows} rows: ${ratio}`);
    }
    for (const rows of [1, 4, 8]) {
      const ratio = costs.draft.rowSeconds(rows) / shape.draft(rows);
      t.ok(ratio > 0.85 && ratio < 1.15, `draft, ${rows} rows: ${ratio}`);
    }
    const shrinks = Array.from({ length: 400 }, (_, i) => i + 1).filter(
      (rows) =>
        costs.target.rowSeconds(rows + 1) < costs.target.rowSeconds(rows) ||
        costs.draft.rowSeconds(rows + 1) < costs.draft.rowSeconds(rows),
    );
    t.same(shrinks, [], 'a row more is never cheaper');
  });
}

t.test('what was held up once at first does not matter', async (t) => {
  for (const heldUp of [0, 1, 2, 3, 4]) {
    const costs = new StepCosts();
    for (let i = 0; i < 5; i++)
      costs.observe({ target: passOf(3), targetSeconds: i === heldUp ? 100 : 1, draftPasses: [], draftSeconds: 0 });
    t.ok(Math.abs(costs.target.rowSeconds(3) - 1) < 1e-9, `measurement ${heldUp}`);
  }
});

t.test('a machine that slows down: what is measured follows at once, and what was not for long by its next few measurements', async (t) => {
  const costs = new StepCosts();
  const run = (rows: number, factor: number) =>
    costs.observe({
      target: passOf(rows),
      targetSeconds: factor * rows,
      draftPasses: [passOf(rows)],
      draftSeconds: 0.1 * factor * rows,
    });
  for (let step = 0; step < 20; step++) for (const rows of [1, 5, 9]) run(rows, 1);
  for (let step = 0; step < 200; step++) run(1, 1.7);
  t.ok(Math.abs(costs.target.rowSeconds(1) - 1.7) < 0.02);
  for (let step = 0; step < 20; step++) for (const rows of [5, 1, 9, 1]) run(rows, 1.7);
  const factors = [costs.target.rowSeconds(9) / 9, costs.target.rowSeconds(5) / 5, costs.draft.rowSeconds(9) / 0.9];
  for (const factor of factors) t.ok(factor > 1.25 && factor < 1.8, `${factor}`);
});

for (const [name, rowsRead, asked] of [
  ['each row reads the context, whatever is drafted', (drafts: number) => drafts + 1, [0, 1, 6]],
  ['each sequence reads it once, as far as was drafted', () => 1, [3, 4]],
] as const) {
  t.test(`contexts that grow after a sweep without any, where ${name}`, async (t) => {
    const random = randomReals(5);
    const noisy = (seconds: number) => seconds * Math.exp(0.1 * random.normal()) * (random.uniform() < 0.02 ? 10 : 1);
    const costs = new StepCosts();
    const truth = (drafts: number, context: number) => 1 + 0.1 * (drafts + 1) + 5e-4 * context * rowsRead(drafts);
    const load = (drafts: number, context: number) => ({ rows: drafts + 1, contextTokens: context, draftContextTokens: drafts * context });
    const run = (drafts: number, context: number) =>
      costs.observe({ target: load(drafts, context), targetSeconds: noisy(truth(drafts, context)), draftPasses: [], draftSeconds: 0 });
    for (let drafts = 0; drafts <= 8; drafts++) for (let repeat = 0; repeat < 5; repeat++) run(drafts, 1 + repeat);
    let unknown = 0;
    for (let context = 10; context < 3000; context += 4) {
      run([3, 3, 0, 4][(context >> 1) % 4] as number, context);
      for (const drafts of asked) {
        const ratio = costs.target.seconds(load(drafts, context)) / truth(drafts, context);
        if (context > 300 && (ratio < 0.75 || ratio > 1.35)) unknown++;
      }
    }
    t.ok(unknown < 0.02 * asked.length * 675, `${unknown} of ${asked.length * 675} estimates are off by a third`);
  });
}

t.test(
  'the sweep: plain steps, every number of drafts for one sequence and octaves of them for more, and two catch-ups, as far as they fit',
  async (t) => {
    const shapes = sweepShapes(limits);
    t.same(
      shapes.filter(({ numSequences }) => numSequences === 1),
      [0, 1, 2, 3, 4, 5, 6, 7, 8]
        .map((numDrafts) => ({ numSequences: 1, numDrafts, catchUpTokens: 1 }))
        .concat([32, 256].map((catchUpTokens) => ({ numSequences: 1, numDrafts: 1, catchUpTokens }))),
    );
    t.same([...new Set(shapes.map(({ numSequences }) => numSequences))], [1, 4, 8]);
    for (const { numSequences, numDrafts, catchUpTokens } of sweepShapes({ ...limits, maxNumBatchedTokens: 40 })) {
      t.ok(numSequences * Math.max(numDrafts + 1, catchUpTokens) <= 40);
    }
  },
);
