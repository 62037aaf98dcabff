/** Sampling: the correct distribution, the correct tokens kept, and the same draw on any number of ranks. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, isas, normals, type Sample, sameBits, testing } from '../helpers/testing.ts';
import { bestOf, gumbelNoise, keptIds, randomFilters, scaled } from '../references/sample.ts';

const plain: Omit<Sample, 'logits'> = {
  firstId: 0,
  temperature: 1,
  topP: 1,
  minP: 0,
  topK: 0,
  seed: 1n,
  position: 0,
  sampleIndex: 0,
  numDraws: 1,
  filtered: false,
};

const draw = (isa: string, options: Partial<Sample> & { logits: Float32Array }): number[] => [
  ...testing.sample({ isa, ...plain, ...options }).ids,
];

test('temperature 0 takes the largest logit, the lowest id of equals, and never a NaN', async (t) => {
  const integers = randomIntegers(1);
  const { NEGATIVE_INFINITY: low, POSITIVE_INFINITY: high, NaN: nan } = Number;
  for (const isa of isas) {
    const greedy = (values: readonly number[]): number | undefined => draw(isa, { logits: Float32Array.from(values), temperature: 0 })[0];
    t.equal(greedy([3]), 0);
    t.equal(greedy([1, 5, 5, 2]), 1);
    t.equal(greedy([-0, 0]), 0);
    t.equal(greedy([nan, low, -3e38, nan]), 2);
    t.equal(greedy([1, high, 3e38, high]), 1);
    t.equal(greedy([nan, low, nan]), -1);
    t.equal(greedy([]), -1);
    for (const n of [15, 16, 17, 33, 1000, 4099]) {
      const logits = Float32Array.from({ length: n }, () => integers(40));
      const best = logits.indexOf(Math.max(...logits));
      t.equal(draw(isa, { logits, temperature: 0 })[0], best);
      t.equal(draw(isa, { logits, temperature: 0, firstId: 77 })[0], best + 77);
    }
  }
});

test('a draw is the arg-max of logit / temperature + the noise at its address', async (t) => {
  const integers = randomIntegers(2);
  for (const isa of isas) {
    for (const n of [1, 3, 16, 64, 65, 257, 1000]) {
      for (const temperature of [0.3, 1, 2.5]) {
        const logits = normals(integers, n, 2);
        const address = {
          seed: (BigInt(integers(2 ** 32)) << 32n) | BigInt(integers(2 ** 32)),
          position: integers(2 ** 20),
          sampleIndex: integers(20),
        };
        const x = scaled(logits, temperature);
        const best = bestOf(isa, [...x.keys()], x, address);
        const drawn = testing.sample({ isa, ...plain, ...address, logits, temperature });
        t.same([...drawn.ids], [best], `${isa} ${n} ids`);
        const noise = gumbelNoise(isa, [best], address);
        t.ok(sameBits(drawn.values, Float32Array.of(at(x, best) + at(noise, 0))), 'and its value');
      }
    }
  }
});

test('a row split over ranks gives the token of the whole row', async (t) => {
  const integers = randomIntegers(3);
  for (const isa of isas) {
    for (const temperature of [0, 0.8]) {
      for (const n of [7, 200, 5003]) {
        const logits = normals(integers, n).map((value) => Math.round(value * 4) / 4);
        const position = integers(1000);
        const whole = testing.sample({ isa, ...plain, temperature, position, logits });
        for (const numShards of [2, 3, 4]) {
          const shards = Array.from({ length: numShards }, (_, rank) => {
            const firstId = Math.floor((rank * n) / numShards);
            const part = logits.slice(firstId, Math.floor(((rank + 1) * n) / numShards));
            return testing.sample({ isa, ...plain, temperature, position, firstId, logits: part });
          });
          const best = shards.reduce((a, b) => (at(b.values, 0) > at(a.values, 0) ? b : a));
          t.same([...best.ids, ...best.values], [...whole.ids, ...whole.values], `${isa} ${n} ids, ${numShards} shards`);
        }
      }
    }
  }
});

/** Pearson's statistic of draws against probabilities. */
function chiSquare(ids: readonly number[], probabilities: readonly number[]): number {
  const counts = new Array<number>(probabilities.length).fill(0);
  for (const id of ids) counts[id] = at(counts, id) + 1;
  return probabilities.reduce((sum, p, id) => {
    const expected = p * ids.length;
    return sum + (expected === 0 ? at(counts, id) * 1e9 : (at(counts, id) - expected) ** 2 / expected);
  }, 0);
}

function probabilities(logits: Float32Array, options: Partial<Sample>): number[] {
  const filters = { ...plain, ...options };
  const x = scaled(logits, filters.temperature);
  const { ids } = keptIds(logits, filters);
  const weights = Array.from(x, (value, id) => (ids.includes(id) ? Math.exp(value) : 0));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / total);
}

test('draws follow the distribution', async (t) => {
  const logits = Float32Array.of(1, 0, 2.5, -1, 0.5, 2.4, -3, 1.5, 0, 0, -0.5, 2);
  const cases: readonly Partial<Sample>[] = [
    { temperature: 1 },
    { temperature: 0.5, seed: 2n ** 63n + 12345n },
    { temperature: 3, sampleIndex: 3 },
    { temperature: 1, filtered: true, topK: 5 },
    { temperature: 1, filtered: true, topP: 0.7 },
    { temperature: 2, filtered: true, minP: 0.3 },
    { temperature: 1.5, filtered: true, topK: 9, topP: 0.9, minP: 0.05 },
  ];
  for (const isa of isas) {
    for (const options of cases) {
      const expected = probabilities(logits, options);
      const ids = draw(isa, { logits, ...options, numDraws: 60_000 });
      const statistic = chiSquare(ids, expected);
      // The 0.9999 quantile for 11 degrees of freedom is 37.4.
      t.ok(statistic < 37.4, `${isa} ${Object.entries(options)}: ${statistic}`);
    }
  }
});

test('seed, position and sample index each change the draws', async (t) => {
  const logits = new Float32Array(1000);
  for (const isa of isas) {
    const base = { logits, numDraws: 20, position: 100 };
    const variants = [{}, { seed: 2n }, { seed: 1n + 2n ** 32n }, { sampleIndex: 1 }, { position: 1000 }];
    const draws = variants.map((variant) => draw(isa, { ...base, ...variant }).join());
    t.equal(new Set(draws).size, variants.length, 'all differ');
    t.equal(
      draw(isa, { ...base, position: 105 })
        .slice(0, 15)
        .join(),
      draw(isa, base).slice(5).join(),
      'a position has one draw',
    );
  }
});

test('filters keep what they should, ties and all', async (t) => {
  const integers = randomIntegers(5);
  let compared = 0;
  for (const isa of isas) {
    for (let round = 0; round < 60; round++) {
      const n = 1 + integers(round < 50 ? 60 : 3000);
      // A step of a half makes many ties; a small spread makes every kept token likely to be drawn.
      const spread = at([0.3, 1, 6], integers(3));
      const step = at([0, 0.5], integers(2));
      const logits = normals(integers, n, spread).map((value) => (step === 0 ? value : Math.round(value / step) * step));
      const filters = randomFilters(integers, n);
      const { ids, margin } = keptIds(logits, filters);
      if (margin < 1e-5) continue;
      compared++;
      const x = scaled(logits, filters.temperature);
      const numDraws = n < 100 ? 40 : 3;
      const drawn = draw(isa, { logits, ...filters, filtered: true, position: 50, numDraws });
      const expected = drawn.map((_, i) => bestOf(isa, ids, x, { ...plain, position: 50 + i }));
      t.same(drawn, expected, `${isa} ${n} ids, ${JSON.stringify(filters)}`);
    }
  }
  t.ok(compared > 50 * isas.length, `${compared} compared`);
});

/** The distinct ids of 400 draws. */
const support = (isa: string, options: Partial<Sample> & { logits: Float32Array }): number[] =>
  [...new Set(draw(isa, { ...options, filtered: true, numDraws: 400 }))].sort((a, b) => a - b);

test('filters decide exact ties by id and exact shares by integers', async (t) => {
  const same = new Float32Array(8);
  for (const isa of isas) {
    t.same(support(isa, { logits: same, topK: 3 }), [0, 1, 2]);
    t.same(support(isa, { logits: same, topP: 0.5 }), [0, 1, 2, 3], 'half of eight equal ones is four of them');
    t.same(support(isa, { logits: same, topP: 0.50001 }), [0, 1, 2, 3, 4]);
    t.same(support(isa, { logits: same, topP: 1e-30 }), [0], 'the best is always kept');
    t.same(support(isa, { logits: same, topK: 4, topP: 0.5 }), [0, 1], 'top-p works on what top-k left');
    t.same(support(isa, { logits: same, minP: 1 }), [0, 1, 2, 3, 4, 5, 6, 7]);
    t.same(support(isa, { logits: Float32Array.of(0, 1, 1, 0.5), minP: 1 }), [1, 2]);
    t.same(support(isa, { logits: Float32Array.of(-0, 0, -0), topK: 2 }), [0, 1], 'zeros are equal');
    const broken = Float32Array.of(Number.NaN, 1, Number.NEGATIVE_INFINITY, 1, Number.NaN);
    for (const options of [{ topK: 4 }, { topP: 0.99 }, { minP: 0.1 }]) t.same(support(isa, { logits: broken, ...options }), [1, 3]);
    t.same(support(isa, { logits: new Float32Array(3).fill(Number.NaN), topP: 0.5 }), [-1]);
    t.same(support(isa, { logits: Float32Array.of(1, 7, 7), temperature: 0, topK: 1 }), [1], 'temperature 0 needs no noise');
  }
});

test('a filter that keeps every token changes no draw', async (t) => {
  const integers = randomIntegers(7);
  for (const isa of isas) {
    for (const spread of [0, 0.1, 1, 3, 10, 1e4]) {
      for (const [n, numDraws] of [
        [20, 300],
        [1001, 100],
        [60_000, 5],
      ] as const) {
        const logits = normals(integers, n, spread);
        for (const temperature of [0.01, 1]) {
          const options = { isa, ...plain, logits, temperature, numDraws, position: integers(1000) };
          const all = testing.sample(options);
          const kept = testing.sample({ ...options, filtered: true, topK: n });
          t.same(all.ids, kept.ids, `${isa} ${n} ids, spread ${spread}, temperature ${temperature}`);
          t.ok(sameBits(all.values, kept.values));
        }
      }
    }
  }
});

test('filters work on rows of any length', async (t) => {
  const integers = randomIntegers(6);
  for (const n of [1, 2, 15, 16, 17, 63, 64, 65, 50_257, 200_000]) {
    const logits = normals(integers, n, 3);
    for (const filters of [{ topK: 40 }, { topP: 0.95 }, { minP: 0.02 }, { topK: 1000, topP: 0.8, minP: 0.01 }]) {
      const { ids, margin } = keptIds(logits, { ...plain, ...filters });
      if (margin < 1e-6) continue;
      for (const isa of isas) {
        const [drawn] = draw(isa, { logits, ...filters, filtered: true, position: 9 });
        t.equal(drawn, bestOf(isa, ids, logits, { ...plain, position: 9 }), `${isa} ${n} ids, ${JSON.stringify(filters)}`);
      }
    }
  }
});

test('threads that share a row take the token that one thread takes', async (t) => {
  const integers = randomIntegers(8);
  for (const isa of isas) {
    for (const n of [1, 64, 65, 1000, 20_000]) {
      for (const step of [0, 0.5]) {
        const logits = normals(integers, n, 3).map((value) => (step === 0 ? value : Math.round(value / step) * step));
        logits[integers(n)] = Number.NaN;
        for (const filters of [
          { topK: 40 },
          { topK: 5000, topP: 0.8 },
          { topP: 0.95 },
          { minP: 0.02 },
          { topK: 900, topP: 0.9, minP: 0.01 },
          { temperature: 0, topK: 3 },
        ]) {
          const options = { isa, ...plain, ...filters, logits, filtered: true, position: integers(1000), numDraws: 8 };
          const one = testing.sample(options);
          for (const numThreads of [2, 3, 7]) {
            const { ids, values } = testing.sample({ ...options, numThreads });
            const same = sameBits(values, one.values) && `${ids}` === `${one.ids}`;
            if (!same) t.fail(`${isa} ${n} ids, ${JSON.stringify(filters)}, ${numThreads} threads`);
          }
        }
      }
    }
  }
  t.pass('all alike');
});
