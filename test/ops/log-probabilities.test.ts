/** Log-probabilities of a row against float64, with ties, padding and NaN logits, on every instruction set. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, isas, normals, sameBits, testing } from '../helpers/testing.ts';

const low = Number.NEGATIVE_INFINITY;

/** Log-softmax over the whole row in float64; NaN counts as -inf. */
function logSoftmax(logits: Float32Array): number[] {
  const x = Array.from(logits, (value) => (Number.isNaN(value) ? low : value));
  const largest = x.reduce((a, b) => Math.max(a, b), low);
  const total = x.reduce((sum, value) => sum + Math.exp(value - largest), 0);
  return x.map((value) => value - largest - Math.log(total));
}

/** Ids below `numDrawable`, likeliest first, the lowest of equals first. */
function order(logits: Float32Array, numDrawable: number): number[] {
  const value = (id: number) => (Number.isNaN(at(logits, id)) ? low : at(logits, id));
  return Array.from({ length: numDrawable }, (_, id) => id).sort((a, b) => (value(a) === value(b) ? a - b : value(b) - value(a)));
}

function check(logits: Float32Array, numDrawable: number, token: number, numLikeliest: number) {
  const expected = logSoftmax(logits);
  const ordered = order(logits, numDrawable);
  // A padding token has the rank that it would have among the others.
  const place = token < numDrawable ? ordered.indexOf(token) : ordered.filter((id) => at(logits, id) >= at(logits, token)).length;
  return (isa: string): string | null => {
    const { ids, logprobs, rank } = testing.logProbabilities({ isa, logits, numDrawable, token, numLikeliest });
    if (rank !== place + 1) return `rank ${rank}, not ${place + 1}`;
    if (`${[...ids]}` !== `${[token, ...ordered.slice(0, numLikeliest)]}`) return `ids ${[...ids]}`;
    for (const [i, id] of ids.entries()) {
      const want = at(expected, id);
      const got = at(logprobs, i);
      if (want === low ? got !== low : !(Math.abs(got - want) <= 2e-6 * Math.max(1, Math.abs(want)))) return `${got}, not ${want}`;
    }
    return null;
  };
}

test('log-probabilities, the likeliest and ranks are those of float64', async (t) => {
  const integers = randomIntegers(21);
  for (const n of [1, 2, 15, 16, 17, 100, 1000, 4099, 50_257]) {
    for (const spread of [0.01, 1, 5, 30]) {
      const logits = normals(integers, n, spread);
      const numDrawable = n - integers(Math.min(n, 20));
      for (const numLikeliest of [0, 1, 5, 20]) {
        const compare = check(logits, numDrawable, integers(n), Math.min(numLikeliest, numDrawable));
        for (const isa of isas) t.equal(compare(isa), null, `${isa} ${n} ids, spread ${spread}, ${numLikeliest} likeliest`);
      }
    }
  }
});

test('equals are in order of their ids', async (t) => {
  const integers = randomIntegers(22);
  for (const n of [40, 333]) {
    const logits = Float32Array.from({ length: n }, () => integers(4) - 2);
    for (let token = 0; token < n; token++) {
      const compare = check(logits, n, token, 20);
      for (const isa of isas) if (compare(isa) !== null) t.fail(`${isa} token ${token}: ${compare(isa)}`);
    }
  }
  const zeros = Float32Array.of(-0, 0, -0);
  for (const isa of isas) t.equal(check(zeros, 3, 2, 3)(isa), null, 'zeros are equal');
});

test('ids past the tokenizer count in the normalizer and are never among the likeliest', async (t) => {
  const logits = Float32Array.of(1, 2, 3, 9, 8);
  for (const isa of isas) {
    t.equal(check(logits, 3, 0, 3)(isa), null);
    t.equal(check(logits, 3, 4, 3)(isa), null, 'a prompt may have such a token');
    const { logprobs } = testing.logProbabilities({ isa, logits, numDrawable: 3, token: 2, numLikeliest: 0 });
    t.ok(at(logprobs, 0) < -6, `${logprobs}`);
  }
});

test('infinite and missing logits leave numbers where they can', async (t) => {
  const high = Number.POSITIVE_INFINITY;
  const cases: Record<string, { logits: Float32Array; logprobs: readonly number[] }> = {
    'some -inf and NaN': { logits: Float32Array.of(0, low, Number.NaN, 0), logprobs: [-Math.LN2, low, low, -Math.LN2] },
    'one number': { logits: Float32Array.of(low, -5, Number.NaN), logprobs: [low, 0, low] },
    none: { logits: Float32Array.of(low, Number.NaN, low), logprobs: [low, low, low] },
    'infinities share it all': { logits: Float32Array.of(high, 3, high, low), logprobs: [-Math.LN2, low, -Math.LN2, low] },
    'further apart than single precision reaches': { logits: Float32Array.of(3e38, -3e38), logprobs: [0, low] },
  };
  for (const [name, { logits, logprobs }] of Object.entries(cases)) {
    for (const isa of isas) {
      for (const [token, expected] of logprobs.entries()) {
        const all = testing.logProbabilities({ isa, logits, numDrawable: logits.length, token, numLikeliest: logits.length });
        const got = at(all.logprobs, 0);
        const difference = got === expected ? 0 : Math.abs(got - expected);
        t.ok(difference < 1e-7, `${isa} ${name}, token ${token}: ${got}`);
        t.same([...all.ids].slice(1), order(logits, logits.length), `${isa} ${name}: order`);
      }
    }
  }
});

test('the normalizer has no order: a row turned round has the same bits', async (t) => {
  const integers = randomIntegers(23);
  for (const n of [100, 5000, 300_000]) {
    const logits = normals(integers, n, 4);
    const turned = logits.toReversed();
    for (const isa of isas) {
      const of = (row: Float32Array, token: number) =>
        testing.logProbabilities({ isa, logits: row, numDrawable: n, token, numLikeliest: 20 }).logprobs;
      t.ok(sameBits(of(logits, 5), of(turned, n - 6)), `${isa} ${n} ids`);
    }
  }
});
