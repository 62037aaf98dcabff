/**
 * Acceptance estimates: positions that a step tries, the prior of a new request, and how fast an estimate follows a
 * text.
 */
import t from 'tap';
import { AcceptanceEstimate, SharedAcceptance } from '../../../rank/speculative/policy/acceptance.ts';
import { randomReals } from '../../helpers/draft-simulator.ts';

const survivalOf = (estimate: AcceptanceEstimate, i: number) => estimate.survivals()[i] as number;
const newEstimate = (most = 4) => new AcceptanceEstimate(new SharedAcceptance(most));

t.test('a method that nothing is known of is assumed to accept three of five', async (t) => {
  const estimate = newEstimate();
  for (let i = 0; i <= 4; i++) t.ok(Math.abs(survivalOf(estimate, i) - 0.6 ** i) < 1e-12, `draft ${i}`);
});

t.test('a position is tried only if all before it were accepted', async (t) => {
  for (const [numDrafted, numAccepted, tried] of [
    [4, 0, [1, 0, 0, 0]],
    [4, 1, [1, 1, 0, 0]],
    [4, 4, [1, 1, 1, 1]],
    [2, 2, [1, 1, 0, 0]],
    [0, 0, [0, 0, 0, 0]],
  ] as const) {
    const estimate = newEstimate();
    estimate.observe(numDrafted, numAccepted);
    const survivals = [...estimate.survivals()];
    const rates = survivals.slice(1).map((survival, i) => survival / (survivals[i] as number));
    // An untried position has the rate of the position before it, up to the differences of the shared prior.
    t.same(
      rates.map((rate, i) => (Math.abs(rate - (rates[i - 1] ?? 0.6)) > 1e-9 ? 1 : 0)),
      tried,
      `${numAccepted} of ${numDrafted}`,
    );
  }
});

t.test('one step: shared and own counts, each with what was assumed before', async (t) => {
  const estimate = newEstimate(1);
  estimate.observe(1, 1);
  // Shared: (1 + 4 · 0.6) / 5. Own, with a prior of three trials at the shared rate: (1 + 3 · 0.68) / 4.
  t.ok(Math.abs(survivalOf(estimate, 1) - (1 + 3 * 0.68) / 4) < 1e-12);
});

t.test('a rate per position is found, and a new request begins with it', async (t) => {
  const rates = [0.9, 0.7, 0.5, 0.3];
  const random = randomReals(1);
  const shared = new SharedAcceptance(4);
  const estimate = new AcceptanceEstimate(shared);
  for (let step = 0; step < 2000; step++) {
    let accepted = 0;
    while (accepted < 4 && random.uniform() < (rates[accepted] as number)) accepted++;
    estimate.observe(4, accepted);
  }
  const newcomer = new AcceptanceEstimate(shared);
  let survival = 1;
  for (const [index, rate] of rates.entries()) {
    survival *= rate;
    t.ok(Math.abs(survivalOf(newcomer, index + 1) - survival) < 0.08, `${survivalOf(newcomer, index + 1)} for ${survival}`);
    t.ok(survivalOf(newcomer, index + 1) <= survivalOf(newcomer, index));
  }
});

t.test('requests of one method differ', async (t) => {
  const shared = new SharedAcceptance(4);
  const [good, bad] = [new AcceptanceEstimate(shared), new AcceptanceEstimate(shared)];
  for (let step = 0; step < 50; step++) {
    good.observe(2, 2);
    bad.observe(2, 0);
  }
  t.ok(survivalOf(good, 1) > 0.9 && survivalOf(bad, 1) < 0.1, `${survivalOf(good, 1)} and ${survivalOf(bad, 1)}`);
  t.ok(survivalOf(good, 4) > 0.6, 'a position that was never tried is assumed to be as good as the one before');
});

t.test('a text that changes is followed within twenty trials, and what was not tried for long fades', async (t) => {
  const shared = new SharedAcceptance(2);
  const other = new AcceptanceEstimate(shared);
  const estimate = new AcceptanceEstimate(shared);
  for (let step = 0; step < 200; step++) estimate.observe(1, 1);
  for (let step = 0; step < 200; step++) other.observe(1, 1);
  for (let step = 0; step < 20; step++) estimate.observe(1, 0);
  t.ok(survivalOf(estimate, 1) < 0.5, `${survivalOf(estimate, 1)} after 20 rejections`);
  t.ok(survivalOf(other, 1) > 0.9, 'not the others');
  for (let step = 0; step < 400; step++) estimate.observe(0, 0);
  t.ok(Math.abs(survivalOf(estimate, 1) - (shared.rates()[1] as number)) < 0.01, 'what others have');
});
