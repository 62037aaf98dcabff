/** Estimates of acceptance: which positions a step tries, what a new request begins with, and how fast estimates follow a text. */
import t from 'tap';
import { AcceptanceEstimate, SharedAcceptance } from '../../../rank/speculative/policy/acceptance.ts';
import { randomReals } from '../../helpers/draft-simulator.ts';

const newEstimate = (most = 4) => new AcceptanceEstimate(new SharedAcceptance(most));

t.test('a method that nothing is known of is assumed to accept three of five', async (t) => {
  const estimate = newEstimate();
  for (let i = 0; i <= 4; i++) t.ok(Math.abs(estimate.survival(i) - 0.6 ** i) < 1e-12, `draft ${i}`);
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
    t.same(
      [1, 2, 3, 4].map((i) => estimate.evidence(i)),
      tried,
      `${numAccepted} of ${numDrafted}`,
    );
  }
});

t.test('one step: shared and own counts, each with what was assumed before', async (t) => {
  const estimate = newEstimate(1);
  estimate.observe(1, 1);
  // Shared: (1 + 4 · 0.6) / 5. Own, three trials of which are as the shared ones: (1 + 3 · 0.68) / 4.
  t.ok(Math.abs(estimate.survival(1) - (1 + 3 * 0.68) / 4) < 1e-12);
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
    t.ok(Math.abs(newcomer.survival(index + 1) - survival) < 0.08, `${newcomer.survival(index + 1)} for ${survival}`);
    t.ok(newcomer.survival(index + 1) <= newcomer.survival(index));
  }
});

t.test('requests of one method differ', async (t) => {
  const shared = new SharedAcceptance(4);
  const [good, bad] = [new AcceptanceEstimate(shared), new AcceptanceEstimate(shared)];
  for (let step = 0; step < 50; step++) {
    good.observe(2, 2);
    bad.observe(2, 0);
  }
  t.ok(good.survival(1) > 0.9 && bad.survival(1) < 0.1, `${good.survival(1)} and ${bad.survival(1)}`);
  t.ok(good.survival(4) > 0.6, 'a position that was never tried is assumed to be as good as the one before');
});

t.test('a text that changes is followed within twenty trials, and what was not tried for long fades', async (t) => {
  const shared = new SharedAcceptance(2);
  const other = new AcceptanceEstimate(shared);
  const estimate = new AcceptanceEstimate(shared);
  for (let step = 0; step < 200; step++) estimate.observe(1, 1);
  for (let step = 0; step < 200; step++) other.observe(1, 1);
  for (let step = 0; step < 20; step++) estimate.observe(1, 0);
  t.ok(estimate.survival(1) < 0.5, `${estimate.survival(1)} after 20 rejections`);
  t.ok(other.survival(1) > 0.9, 'not the others');
  for (let step = 0; step < 400; step++) estimate.observe(0, 0);
  t.ok(Math.abs(estimate.survival(1) - shared.rate(1)) < 0.01, 'what others have');
});
