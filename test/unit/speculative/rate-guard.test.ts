/** Drafting or not, by what steps brought: the better of the two after a few windows, whatever estimates say, and never much worse than plain. */
import t from 'tap';
import { RateGuard } from '../../../rank/speculative/policy/rate-guard.ts';
import { randomIntegers } from '../../helpers/random.ts';

interface World {
  /** Tokens per second of a step with and without drafts, relative to plain. */
  readonly drafting: (step: number) => number;
  readonly numSteps: number;
  readonly seed: number;
}

/** Results come back two steps late; the seconds of a step vary by a third, and one in fifty takes five times as long. */
function run({ drafting, numSteps, seed }: World) {
  const below = randomIntegers(seed);
  const guard = new RateGuard();
  const late: (() => void)[] = [];
  let seconds = 0;
  let tokens = 0;
  let numDrafting = 0;
  const perWindow: boolean[] = [];
  for (let step = 0; step < numSteps; step++) {
    const drafts = guard.mayDraft(1);
    guard.planned(1);
    const brought = drafts ? 2 : 1;
    const took = ((drafts ? 2 / drafting(step) : 1) * (5 + below(3)) * (below(50) === 0 ? 5 : 1)) / 6;
    seconds += took;
    tokens += brought;
    if (drafts) numDrafting++;
    perWindow.push(drafts);
    late.push(() => guard.settle(1, drafts, brought, took));
    if (late.length > 2) late.shift()?.();
  }
  // A plain step takes 1 on average, but for the slow ones.
  const plainRate = 1 / (1 + 4 / 50);
  return { speedUp: tokens / seconds / plainRate, numDrafting, perWindow };
}

t.test('drafts that do not pay cost little, and those that pay are made', async (t) => {
  for (const seed of [1, 2, 3, 4]) {
    for (const drafting of [0.5, 0.8, 0.9]) {
      const { speedUp, numDrafting } = run({ drafting: () => drafting, numSteps: 6000, seed });
      t.ok(numDrafting < 6000 / 10, `${drafting}, seed ${seed}: ${numDrafting} of 6000 steps drafted`);
      t.ok(speedUp > (drafting === 0.5 ? 0.94 : 0.97), `${drafting}, seed ${seed}: ${speedUp} of plain`);
    }
    for (const drafting of [1.3, 2]) {
      const { numDrafting } = run({ drafting: () => drafting, numSteps: 6000, seed });
      t.ok(numDrafting > 6000 * 0.9, `${drafting}, seed ${seed}: ${numDrafting} of 6000 steps drafted`);
    }
  }
});

t.test('a change is noticed either way', async (t) => {
  const better = run({ drafting: (step) => (step < 3000 ? 0.5 : 2), numSteps: 12_000, seed: 5 });
  t.ok(better.perWindow.slice(-1000).filter(Boolean).length > 900, 'texts that become easy');
  const worse = run({ drafting: (step) => (step < 3000 ? 2 : 0.5), numSteps: 12_000, seed: 6 });
  t.ok(worse.perWindow.slice(-1000).filter(Boolean).length < 100, 'texts that become hard');
});

t.test('where drafting brings clearly more than plain steps are estimated to, plain ones are not tried', async (t) => {
  const countPlain = (plainSeconds: number | null) => {
    const guard = new RateGuard();
    let numPlain = 0;
    for (let step = 0; step < 1000; step++) {
      const drafts = guard.mayDraft(1);
      guard.planned(1);
      if (!drafts) numPlain++;
      guard.settle(1, drafts, drafts ? 2 : 1, 1, plainSeconds);
    }
    return numPlain;
  };
  t.equal(countPlain(1), 0);
  t.ok(countPlain(null) >= 32, 'without an estimate they are');
  t.ok(countPlain(0.6) >= 32, 'nor where it is close');
});

t.test('before anything was compared drafts must promise clearly more than plain steps', async (t) => {
  const guard = new RateGuard();
  const mustPromise: number[] = [];
  for (let step = 0; step < 200; step++) {
    mustPromise.push(guard.leastGain(1));
    const drafts = guard.mayDraft(1);
    guard.planned(1);
    guard.settle(1, drafts, drafts ? 2 : 1, 1);
  }
  t.ok((mustPromise[0] as number) > 1.05);
  t.equal(mustPromise.at(-1), 1, 'then what they bring decides');
  t.equal(guard.leastGain(32), mustPromise[0], 'of each number of sequences by itself');
});

t.test('it must draft when that is tried and when it was measured to pay', async (t) => {
  const guard = new RateGuard();
  t.notOk(guard.mustDraft(1), 'nothing is known yet');
  for (const pays of [true, false]) {
    let numForced = 0;
    for (let step = 0; step < 4000; step++) {
      const drafts = guard.mayDraft(1);
      if (guard.mustDraft(1)) numForced++;
      if (guard.mustDraft(1) && !drafts) t.fail('a step that must draft may not');
      guard.planned(1);
      guard.settle(1, drafts, drafts ? 2 : 1, drafts && !pays ? 4 : 1);
    }
    t.ok(pays ? numForced > 3000 : numForced < 800, `${numForced} of 4000 steps, pays: ${pays}`);
  }
});

t.test('numbers of sequences are compared with their like', async (t) => {
  const guard = new RateGuard();
  for (let step = 0; step < 400; step++) {
    for (const numSequences of [1, 32]) {
      const drafts = guard.mayDraft(numSequences);
      guard.planned(numSequences);
      guard.settle(numSequences, drafts, drafts ? 2 : 1, drafts ? (numSequences === 1 ? 1 : 4) : 1);
    }
  }
  t.ok(guard.mayDraft(1));
  t.notOk(guard.mayDraft(32));
});
