/** The choice of drafts for one step, against all possible plans and against rules broken on purpose. */
import t from 'tap';
import { allDrafts, chooseDrafts } from '../../../rank/speculative/policy/choose-drafts.ts';
import { type DraftCandidate, type DraftStep, mostDraftsOf } from '../../../rank/speculative/policy/draft-step.ts';
import { costShapes, randomReals, type TrueCosts, trueEstimates } from '../../helpers/draft-simulator.ts';

const sequence = (rate: number, other: Partial<DraftCandidate> = {}): DraftCandidate => ({
  acceptance: { learns: true, survivals: (most) => Array.from({ length: most + 1 }, (_, i) => rate ** i), observe() {} },
  most: 4,
  source: 'draft_model',
  contextTokens: 100,
  catchUpTokens: 1,
  remainingTokens: 1000,
  ...other,
});

/** Goodput of a plan in tokens per second, by definition, without amortizing catch-ups. */
function goodput({ candidates, numOtherRows }: DraftStep, numDrafts: readonly number[], { target, draft, host }: TrueCosts): number {
  const tokens = candidates.reduce((sum, { acceptance, most }, r) => {
    const drafts = Array.from(acceptance.survivals(most)).slice(0, (numDrafts[r] as number) + 1);
    return sum + drafts.reduce((a, b) => a + b, 0);
  }, 0);
  const deepest = Math.max(...numDrafts);
  let seconds = host + target(candidates.length);
  for (let pass = 1; pass <= deepest; pass++) {
    const rows = candidates.reduce((sum, { source, catchUpTokens }, r) => {
      const drafts = source === 'draft_model' && (numDrafts[r] as number) >= pass;
      return sum + (drafts ? (pass === 1 ? catchUpTokens : 1) : 0);
    }, 0);
    if (rows > 0) seconds += draft(rows);
  }
  const rows = candidates.length + numOtherRows;
  return tokens / (seconds + target(rows + numDrafts.reduce((a, b) => a + b, 0)) - target(rows));
}

function bestGoodput(step: DraftStep, costs: TrueCosts): number {
  let best = 0;
  const tryAll = (numDrafts: number[]): void => {
    const next = step.candidates[numDrafts.length];
    if (next === undefined) best = Math.max(best, goodput(step, numDrafts, costs));
    else for (let n = 0; n <= mostDraftsOf(next); n++) tryAll([...numDrafts, n]);
  };
  tryAll([]);
  return best;
}

/** Stops at the first slot without a gain, as if costs were convex. */
function stopEarly(step: DraftStep, costs: TrueCosts): number[] {
  const numDrafts = step.candidates.map(() => 0);
  for (;;) {
    const tried = step.candidates.map((_, r) => numDrafts.map((n, other) => (other === r ? n + 1 : n)));
    const allowed = tried.filter((plan) => plan.every((n, r) => n <= mostDraftsOf(step.candidates[r] as DraftCandidate)));
    const best = allowed.sort((a, b) => goodput(step, b, costs) - goodput(step, a, costs))[0];
    if (best === undefined || goodput(step, best, costs) <= goodput(step, numDrafts, costs)) return numDrafts;
    numDrafts.splice(0, numDrafts.length, ...best);
  }
}

t.test('as good as the best of all plans, within what a plain step is preferred by', async (t) => {
  const random = randomReals(11);
  const shares: number[] = [];
  const early: number[] = [];
  for (let trial = 0; trial < 600; trial++) {
    const costs = Object.values(costShapes)[trial % 4] as TrueCosts;
    const candidates = Array.from({ length: 1 + (trial % 4) }, () =>
      sequence(random.uniform(), {
        most: 1 + Math.floor(4 * random.uniform()),
        source: random.uniform() < 0.3 ? 'text' : 'draft_model',
        catchUpTokens: random.uniform() < 0.5 ? 1 : 2,
        remainingTokens: random.uniform() < 0.1 ? 2 : 1000,
      }),
    );
    const step = { candidates, numOtherRows: trial % 3 === 0 ? 64 : 0 };
    const best = bestGoodput(step, costs);
    shares.push(goodput(step, chooseDrafts(step, trueEstimates(costs)), costs) / best);
    early.push(goodput(step, stopEarly(step, costs), costs) / best);
  }
  const worst = Math.min(...shares);
  const exact = shares.filter((share) => share > 1 - 1e-9).length / shares.length;
  t.ok(worst > 0.97, `the worst of 600 plans has ${worst} of the best`);
  t.ok(exact > 0.85, `${exact} are the best`);
  t.ok(Math.min(...early) < 0.9, `a rule that stops at the first slot that does not pay: ${Math.min(...early)}`);
});

t.test('a draft pass that one sequence makes pay is there for all, when rows cost nothing', async (t) => {
  const costs = trueEstimates({ target: () => 1, draft: () => 0.25, host: 0 });
  const hesitant = Array.from({ length: 7 }, () => sequence(0.2));
  t.same(chooseDrafts({ candidates: hesitant, numOtherRows: 0 }, costs), new Array(7).fill(0), '1.2 tokens in 1.25');
  const chosen = chooseDrafts({ candidates: [...hesitant, ...Array.from({ length: 7 }, () => sequence(0.9))], numOtherRows: 0 }, costs);
  t.ok(
    chosen.every((n) => n >= 1),
    `${chosen}`,
  );
});

t.test('sequences that accept more get more', async (t) => {
  const rates = [0.2, 0.9, 0.5, 0.9, 0.7];
  const candidates = rates.map((rate) => sequence(rate, { most: 8 }));
  for (const shape of [costShapes.flat, { target: (rows: number) => 0.8 + 0.2 * rows, draft: () => 0.02, host: 0 }]) {
    const chosen = chooseDrafts({ candidates, numOtherRows: 0 }, trueEstimates(shape));
    const [a, b, c, d, e] = chosen as [number, number, number, number, number];
    t.ok(a <= c && c <= e && e <= b && b === d && a < b, `${chosen}`);
  }
});

t.test('a catch-up of 500 tokens is paid for a long text, not for one that ends in 10 tokens', async (t) => {
  // 500 rows of the draft model cost ten plain steps.
  const costs = trueEstimates({ target: (rows) => 1 + 0.004 * rows, draft: (rows) => 0.1 + 0.02 * rows, host: 0 });
  const choose = (remainingTokens: number, catchUpTokens: number) =>
    chooseDrafts({ candidates: [sequence(0.8, { remainingTokens, catchUpTokens })], numOtherRows: 0 }, costs)[0] as number;
  t.equal(choose(10, 500), 0);
  t.ok(choose(10, 1) > 0, 'it is the catch-up');
  t.ok(choose(1000, 500) > 0);
  const two = [sequence(0.8, { remainingTokens: 10, catchUpTokens: 500 }), sequence(0.8)];
  const [late, other] = chooseDrafts({ candidates: two, numOtherRows: 0 }, costs) as [number, number];
  t.ok(late === 0 && other > 0, 'nor beside another one');
});

t.test('a text that is searched costs rows only', async (t) => {
  const costs = trueEstimates({ target: (rows) => 1 + 0.01 * rows, draft: () => 2, host: 0 });
  t.same(
    chooseDrafts({ candidates: [sequence(0.5, { source: 'text', catchUpTokens: 10_000 }), sequence(0.5)], numOtherRows: 0 }, costs)[1],
    0,
  );
  t.ok((chooseDrafts({ candidates: [sequence(0.5, { source: 'text' }), sequence(0.5)], numOtherRows: 0 }, costs)[0] as number) > 0);
});

t.test('the rows of a prompt in the same step do not make drafts look cheap', async (t) => {
  const costs = trueEstimates({ target: (rows) => 1 + 0.5 * rows, draft: () => 0.05, host: 0 });
  const candidates = [sequence(0.3), sequence(0.3)];
  t.same(chooseDrafts({ candidates, numOtherRows: 0 }, costs), [0, 0]);
  t.same(chooseDrafts({ candidates, numOtherRows: 512 }, costs), [0, 0]);
});

t.test('drafts that promise less than they must are left', async (t) => {
  const step = { candidates: [sequence(0.8)], numOtherRows: 0 };
  const costs = costShapes.flat as TrueCosts;
  const gain = bestGoodput(step, costs) / goodput(step, [0], costs);
  t.ok(gain > 1.1);
  t.ok((chooseDrafts(step, trueEstimates(costs), { leastGain: gain * 0.999 })[0] as number) > 0);
  t.strictSame(chooseDrafts(step, trueEstimates(costs), { leastGain: gain * 1.001 }), [0]);
});

t.test('a long context makes drafts dear where each row reads it, and cheap where a sequence reads it once', async (t) => {
  const costs = (drafts: number) => trueEstimates({ ...costShapes.flat, context: { newest: 1e-3, drafts, draftModel: 0 } });
  const choose = (contextTokens: number, draftContextSeconds: number) =>
    chooseDrafts({ candidates: [sequence(0.7, { contextTokens })], numOtherRows: 0 }, costs(draftContextSeconds))[0] as number;
  t.ok(choose(10, 1e-3) > 1);
  t.equal(choose(100_000, 1e-3), 0);
  t.ok(choose(100_000, 0) >= choose(10, 0), 'once');
});

t.test('a bonus makes a draft that does not pay, and no other', async (t) => {
  const costs = trueEstimates(costShapes.flat);
  const candidates = [sequence(0.001), sequence(0.001), sequence(0.001)];
  const choose = (tokens: number) => chooseDrafts({ candidates, numOtherRows: 0 }, costs, { bonus: { r: 1, i: 1, tokens } });
  t.same(choose(0.1), [0, 0, 0]);
  t.same(choose(0.5), [0, 1, 0]);
});

t.test('no more than fit or can be used', async (t) => {
  const costs = trueEstimates({ target: () => 1, draft: () => 0.01, host: 0 });
  const candidates = [
    sequence(0.99),
    sequence(0.9, { remainingTokens: 3 }),
    sequence(0.9, { remainingTokens: 1 }),
    sequence(0.9, { most: 0 }),
  ];
  t.same(chooseDrafts({ candidates, numOtherRows: 0 }, costs), [4, 2, 0, 0]);
  t.same(allDrafts({ candidates, numOtherRows: 0 }), [4, 2, 0, 0]);
  for (const mostDrafts of [0, 1, 3, 5]) {
    for (const chosen of [
      chooseDrafts({ candidates, numOtherRows: 0, mostDrafts }, costs),
      allDrafts({ candidates, numOtherRows: 0, mostDrafts }),
    ]) {
      t.equal(
        chosen.reduce((a, b) => a + b, 0),
        mostDrafts,
        `${chosen}`,
      );
    }
  }
  t.same(chooseDrafts({ candidates: [], numOtherRows: 9 }, costs), []);
});
