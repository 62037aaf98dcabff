/**
 * The draft policy in simulation: close to the best plan, never much slower than no drafts, and fast to follow a text
 * that changes.
 */
import t from 'tap';
import { AcceptanceEstimate, SharedAcceptance } from '../../../rank/speculative/policy/acceptance.ts';
import { chooseDrafts } from '../../../rank/speculative/policy/choose-drafts.ts';
import { DraftPolicy } from '../../../rank/speculative/policy/draft-policy.ts';
import { StepCosts } from '../../../rank/speculative/policy/step-costs.ts';
import {
  bestPlan,
  contextShapes,
  costShapes,
  type Decider,
  knowingDecider,
  type Scenario,
  simulate,
  speedUp,
} from '../../helpers/draft-simulator.ts';
import { part } from '../../helpers/scale.ts';

const most = 8;
const newPolicy = (costs: StepCosts): Decider => new DraftPolicy({ costs, adaptive: true });

/** Broken on purpose: the best plan by the estimates, without exploration, decay or a stop. */
const estimatesOnly = (costs: StepCosts): Decider => ({
  decide: (step) => ({
    numDrafts: chooseDrafts(step, costs),
    candidates: step.candidates,
    seconds: null,
    isTrial: false,
  }),
  settle: ({ candidates }, outcomes) => {
    for (const [r, outcome] of outcomes.entries()) {
      if (outcome?.numDrafted) candidates[r]?.acceptance.observe(outcome.numDrafted, outcome.numAccepted);
    }
  },
});

/** Broken on purpose: catch-ups of the draft model cost nothing. */
const catchUpForNothing = (costs: StepCosts): Decider => {
  const policy = newPolicy(costs);
  return {
    decide: (step) => policy.decide({ ...step, candidates: step.candidates.map((candidate) => ({ ...candidate, catchUpTokens: 1 })) }),
    settle: (...result) => policy.settle(...result),
  };
};

const scenario = (other: Partial<Scenario>): Scenario => ({
  numSequences: 1,
  numSteps: 2000,
  most,
  source: 'draft_model',
  costs: costShapes.flat,
  alpha: () => 0.5,
  noise: 0.1,
  seed: 1,
  ...other,
});

/** Steps after `from` until a window of twenty steps is `factor` times as fast as plain decoding. */
function stepsUntil(steps: ReturnType<typeof simulate>, from: number, factor: number): number {
  for (let step = from; step + 20 <= steps.length; step++) {
    if (speedUp(steps.slice(step, step + 20)) >= factor) return step - from;
  }
  return Number.POSITIVE_INFINITY;
}

t.test('whatever drafts cost and texts accept: close to the best plan, never 2 % slower than none', async (t) => {
  const shares: number[] = [];
  for (const [name, costs] of Object.entries(costShapes)) {
    for (const source of name === 'dearDraft' ? (['draft_model'] as const) : (['draft_model', 'text'] as const)) {
      for (const numSequences of name === 'linear' || name === 'dearDraft' ? [1, 8] : [1, 8, 32]) {
        for (const rate of { 1: [0, 0.2, 0.4, 0.6, 0.8, 0.95, 1], 8: [0, 0.4, 0.8, 1], 32: [0, 0.8] }[numSequences] ?? []) {
          const numSteps = 1200;
          const steps = simulate(scenario({ numSequences, numSteps, source, costs, alpha: () => rate, seed: 7 + numSequences }), newPolicy);
          const best = bestPlan([{ size: numSequences, survival: (i) => rate ** i }], most, costs, source);
          const where = `${name}, ${source}, ${numSequences} sequences, ${rate} accepted`;
          t.ok(speedUp(steps) >= 0.98, `${where}: ${speedUp(steps)} of plain decoding over all`);
          const share = speedUp(steps.slice(numSteps / 3)) / best.speedUp;
          t.ok(share >= 0.9, `${where}: ${share} of the best`);
          shares.push(share);
        }
      }
    }
  }
  shares.sort((a, b) => a - b);
  t.ok((shares[Math.floor(shares.length / 10)] as number) >= 0.95, `${shares[Math.floor(shares.length / 10)]} in nine of ten`);
  t.ok((shares[Math.floor(shares.length / 2)] as number) >= 0.985, `${shares[Math.floor(shares.length / 2)]} in half of them`);
});

t.test('a clear optimum is found: within one draft of it in nine of ten steps', async (t) => {
  for (const [rate, numSequences] of [
    [0.4, 1],
    [0.6, 1],
    [0.95, 1],
    [0.6, 8],
    [0, 8],
  ] as const) {
    const best = bestPlan([{ size: numSequences, survival: (i) => rate ** i }], most, costShapes.flat, 'draft_model');
    const each = (best.totals[0] as number) / numSequences;
    const steps = simulate(scenario({ numSequences, alpha: () => rate }), newPolicy).slice(500);
    const drafts = steps.flatMap(({ numDrafts }) => numDrafts);
    const near = drafts.filter((n) => n >= Math.floor(each) - 1 && n <= Math.ceil(each) + 1).length / drafts.length;
    t.ok(near >= 0.9, `${near} of the steps for ${numSequences} sequences, ${rate}`);
  }
});

t.test('acceptance that falls with depth, and requests that differ', async (t) => {
  const decaying = simulate(scenario({ alpha: (_, i) => 0.95 - 0.2 * (i - 1) }), newPolicy).slice(500);
  const survival = (i: number) => Array.from({ length: i }, (_, j) => Math.max(0, 0.95 - 0.2 * j)).reduce((a, b) => a * b, 1);
  const best = bestPlan([{ size: 1, survival }], most, costShapes.flat, 'draft_model');
  t.ok(speedUp(decaying) / best.speedUp > 0.97, `${speedUp(decaying)} of ${best.speedUp}`);

  const groups = [0.9, 0.3];
  const mixed = simulate(scenario({ numSequences: 8, alpha: (r) => groups[r % 2] as number }), newPolicy).slice(500);
  const bestMixed = bestPlan(
    groups.map((rate) => ({ size: 4, survival: (i) => rate ** i })),
    most,
    costShapes.flat,
    'draft_model',
  );
  t.ok(speedUp(mixed) / bestMixed.speedUp > 0.9, `${speedUp(mixed)} of ${bestMixed.speedUp}`);
  const drafts = (parity: number) =>
    mixed.reduce((sum, step) => sum + step.numDrafts.reduce((a, n, r) => a + (r % 2 === parity ? n : 0), 0), 0);
  t.ok(drafts(0) > 2 * drafts(1), `${drafts(0)} drafts where most are accepted, ${drafts(1)} where few are`);
});

t.test(
  'a text that becomes easy is noticed: within 60 steps alone, within 400 in a batch of eight; without exploration it is not',
  async (t) => {
    for (const [numSequences, most, factor] of [
      [1, 60, 3],
      [8, 400, 1.8],
    ] as const) {
      for (const seed of part([1, 2, 3, 4, 5, 6], 2)) {
        const jump = scenario({ numSequences, seed, alpha: (_, __, step) => (step < 1000 ? 0 : 0.9), numOutputTokens: 1e6 });
        const steps = simulate(jump, newPolicy);
        t.ok(speedUp(steps.slice(0, 1000)) > 0.98, 'while nothing is accepted');
        t.ok(stepsUntil(steps, 1000, factor) <= most, `${stepsUntil(steps, 1000, factor)} steps`);
        t.equal(stepsUntil(simulate(jump, estimatesOnly), 1000, factor), Number.POSITIVE_INFINITY, 'the rule without exploration');
      }
    }
  },
);

t.test('a text that becomes hard is left within 40 steps', async (t) => {
  const steps = simulate(scenario({ alpha: (_, __, step) => (step < 500 ? 0.9 : 0) }), newPolicy);
  t.ok(speedUp(steps.slice(0, 500)) > 2.5);
  const drafts = steps.slice(540).filter(({ numDrafts }) => numDrafts.some((n) => n > 0)).length;
  t.ok(drafts / 1460 < 0.1, `${drafts} of 1460 steps draft`);
});

t.test('catch-ups are paid: long prompts and short outputs', async (t) => {
  for (const numSequences of [1, 8]) {
    const costs = { ...costShapes.flat, draft: (rows: number) => 0.1 + 0.01 * rows };
    const long = scenario({ numSequences, costs, alpha: () => 0.5, numPromptTokens: 1000, numOutputTokens: 16 });
    t.ok(speedUp(simulate(long, newPolicy)) > 0.98, `${speedUp(simulate(long, newPolicy))}`);
    t.ok(speedUp(simulate(long, catchUpForNothing)) < 0.9, 'the rule that ignores them');
  }
});

t.test('a machine that slows down by half and recovers changes nothing', async (t) => {
  const slowness = (step: number) => (Math.floor(step / 400) % 2 === 0 ? 1 : 2);
  for (const rate of [0, 0.8]) {
    const even = speedUp(simulate(scenario({ alpha: () => rate }), newPolicy));
    const uneven = speedUp(simulate(scenario({ alpha: () => rate, slowness }), newPolicy));
    t.ok(uneven / even > 0.96 && uneven > 0.98, `${uneven} and ${even}`);
  }
});

t.test('contexts that grow past all that the sweep saw: never 2 % slower than none, and close to who knows all costs', async (t) => {
  const shares: number[] = [];
  for (const [name, costs] of Object.entries(contextShapes)) {
    for (const numSequences of [1, 8]) {
      for (const rate of [0, 0.4, 0.6, 0.8]) {
        const numOutputTokens = name === 'story' ? 1000 : 6000;
        const long = scenario({ numSequences, costs, alpha: () => rate, numPromptTokens: 16, numOutputTokens, numSteps: 3000 });
        const steps = simulate(long, newPolicy);
        const where = `${name}, ${numSequences} sequences, ${rate} accepted`;
        t.ok(speedUp(steps) >= 0.98, `${where}: ${speedUp(steps)} of plain decoding`);
        const share = speedUp(steps) / speedUp(simulate(long, () => knowingDecider(long)));
        t.ok(share >= 0.85, `${where}: ${share} of the best`);
        shares.push(share);
      }
    }
  }
  shares.sort((a, b) => a - b);
  t.ok((shares[Math.floor(shares.length / 2)] as number) >= 0.975, `${shares[Math.floor(shares.length / 2)]} in half of them`);
});

t.test('whatever the sweep saw: drafts that are cheaper are found, and those that are dearer left', async (t) => {
  const dear = { ...costShapes.flat, draft: () => 1 };
  const cheaper = simulate(scenario({ alpha: () => 0.8, sweepCosts: dear }), newPolicy);
  t.ok(speedUp(cheaper) > 1.8, `${speedUp(cheaper)} where 2.4 is the best`);
  const dearer = simulate(scenario({ alpha: () => 0.4, costs: dear, sweepCosts: costShapes.flat }), newPolicy);
  t.ok(speedUp(dearer) > 0.93, `${speedUp(dearer)} of plain decoding`);
});

t.test('whatever is estimated: what drafts lost stays below 2 % of what was decoded', async (t) => {
  /** Always estimates that nine of ten drafts are accepted. */
  class Believer extends AcceptanceEstimate {
    override survivals(): Float64Array {
      return Float64Array.from({ length: most + 1 }, (_, i) => 0.9 ** i);
    }
    override observe(): void {}
  }
  const costs = new StepCosts();
  for (let rows = 1; rows < 16; rows++) for (let n = 0; n < 9; n++) observe(rows);
  function observe(rows: number): void {
    const load = { rows, contextTokens: 0, draftContextTokens: 0 };
    costs.observe({ target: load, targetSeconds: 1 + 0.01 * rows, draftPasses: [load], draftSeconds: 0.1 });
  }
  const policies = { real: newPolicy(costs), broken: estimatesOnly(costs) };
  const lost = (policy: Decider) => {
    const acceptance = new Believer(new SharedAcceptance(most));
    let [seconds, plain] = [0, 0];
    for (let step = 0; step < 4000; step++) {
      const candidates = [{ acceptance, most, source: 'draft_model', contextTokens: 1, catchUpTokens: 1, remainingTokens: 1000 } as const];
      const decision = policy.decide({ candidates, numOtherRows: 0 });
      const [numDrafted = 0] = decision.numDrafts;
      const measured = 1.01 + 0.01 * numDrafted + 0.1 * numDrafted;
      policy.settle(decision, [{ numDrafted, numAccepted: 0 }], measured);
      seconds += measured;
      plain += 1.01;
    }
    return 1 - plain / seconds;
  };
  t.ok(lost(policies.real) < 0.02, `${lost(policies.real)}`);
  t.ok(lost(policies.broken) > 0.3, 'the rule without a brake');
});

t.test('not adaptive: always as many as there may be', async (t) => {
  const policy = new DraftPolicy({ costs: new StepCosts(), adaptive: false });
  const acceptance = new AcceptanceEstimate(new SharedAcceptance(most));
  const candidate = { acceptance, most: 4, source: 'draft_model', contextTokens: 900, catchUpTokens: 900, remainingTokens: 1000 } as const;
  const step = { candidates: [candidate, { ...candidate, remainingTokens: 3 }, { ...candidate, most: 0 }], numOtherRows: 0 };
  for (let n = 0; n < 50; n++) {
    const decision = policy.decide(step);
    t.same(decision.numDrafts, [4, 2, 0]);
    policy.settle(decision, [{ numDrafted: 4, numAccepted: 0 }, { numDrafted: 2, numAccepted: 0 }, null], 1);
  }
});
