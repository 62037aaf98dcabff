/** Histograms: the bucket of a value, and quantiles against the sorted values. */
import t from 'tap';
import { exponentialBounds, Histogram, quantile, secondsBounds } from '../../../rank/engine/histogram.ts';
import { randomIntegers } from '../../helpers/random.ts';

t.test('a bound belongs to its bucket, what is above all bounds to the last', async (t) => {
  const histogram = new Histogram([1, 2, 4]);
  for (const value of [0, 1, 1.5, 2, 3, 4, 4.5, 1000, 3, 3]) histogram.observe(value);
  t.same(histogram.snapshot, {
    count: 10,
    sum: 0 + 1 + 1.5 + 2 + 3 + 4 + 4.5 + 1000 + 6,
    min: 0,
    max: 1000,
    bounds: [1, 2, 4],
    counts: [2, 2, 4, 2],
  });
});

t.test('nothing counted', async (t) => {
  const { snapshot } = new Histogram([1]);
  t.same(snapshot, { count: 0, sum: 0, min: null, max: null, bounds: [1], counts: [0, 0] });
  t.equal(quantile(snapshot, 0.5), null);
});

t.test('a snapshot stays what it was, and is a copy that can be sent', async (t) => {
  const histogram = new Histogram([1]);
  histogram.observe(0.5);
  const { snapshot } = histogram;
  t.equal(histogram.snapshot, snapshot, 'nothing new, nothing copied');
  histogram.observe(2);
  t.equal(snapshot.count, 1);
  t.same(snapshot.counts, [1, 0]);
  t.same(structuredClone(histogram.snapshot), { count: 2, sum: 2.5, min: 0.5, max: 2, bounds: [1], counts: [1, 1] });
});

t.test('bounds grow by a factor', async (t) => {
  t.same(exponentialBounds(3, 2, 4), [3, 6, 12, 24]);
  t.ok((secondsBounds[0] as number) <= 1e-6 && (secondsBounds.at(-1) as number) > 600);
});

t.test('a quantile lies in the bucket of the exact one', async (t) => {
  const below = randomIntegers(5);
  for (const size of [1, 2, 10, 1000]) {
    const values = Array.from({ length: size }, () => 2 ** (below(2000) / 100) * 1e-6).sort((a, b) => a - b);
    const histogram = new Histogram();
    for (const value of values) histogram.observe(value);
    for (const q of [0, 0.01, 0.5, 0.9, 0.99, 1]) {
      const exact = values[Math.max(0, Math.ceil(q * size) - 1)] as number;
      const estimate = quantile(histogram.snapshot, q) as number;
      t.ok(estimate >= exact / 1.5 - 1e-12 && estimate <= exact * 1.5 + 1e-12, `${q} of ${size}: ${exact} and ${estimate}`);
      t.ok(estimate >= (values[0] as number) && estimate <= (values.at(-1) as number), 'among the values');
    }
  }
});
