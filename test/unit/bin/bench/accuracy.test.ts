/** Perplexity, agreement and divergence against a plain reference in double precision. */
import t from 'tap';
import { accuracyOf, addSums, compareLogits, noSums, windowsOf } from '../../../../bin/bench/accuracy.ts';
import { randomIntegers } from '../../../helpers/random.ts';

const vocabSize = 5;

/** Probabilities of a row, the plain way. */
function softmax(row: readonly number[]): number[] {
  const powers = row.map((logit) => Math.exp(logit));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function randomRows(numRows: number, seed: number): number[][] {
  const below = randomIntegers(seed);
  return Array.from({ length: numRows }, () => Array.from({ length: vocabSize }, () => Math.fround(below(2000) / 250 - 4)));
}

t.test('every quantity is that of a plain reference', async (t) => {
  const [numTokens, tokenIds] = [7, [0, 3, 1, 4, 4, 2, 0]];
  const [rows, reference] = [randomRows(numTokens, 1), randomRows(numTokens, 2)];
  const scored = rows.slice(0, -1).map((row, i) => ({ row, other: reference[i] as number[], next: tokenIds[i + 1] as number }));
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const perplexityOf = (of: (one: (typeof scored)[number]) => number[]) =>
    mean(scored.map((one) => -Math.log(softmax(of(one))[one.next] as number)));
  const errors = scored.flatMap(({ row, other }) => row.map((logit, j) => logit - (other[j] as number)));
  const argmax = (row: readonly number[]) => row.indexOf(Math.max(...row));
  const expected = {
    numTokens: numTokens - 1,
    perplexity: Math.exp(perplexityOf(({ row }) => row)),
    referencePerplexity: Math.exp(perplexityOf(({ other }) => other)),
    maxLogitError: Math.max(...errors.map(Math.abs)),
    rmsLogitError: Math.sqrt(mean(errors.map((error) => error * error))),
    topOneAgreement: mean(scored.map(({ row, other }) => (argmax(row) === argmax(other) ? 1 : 0))),
    klDivergence: mean(
      scored.map(({ row, other }) => {
        const [p, q] = [softmax(other), softmax(row)];
        return p.reduce((sum, one, j) => sum + one * Math.log(one / (q[j] as number)), 0);
      }),
    ),
  };
  const actual = accuracyOf(compareLogits(Float32Array.from(rows.flat()), Float32Array.from(reference.flat()), tokenIds));
  for (const [name, value] of Object.entries(expected)) {
    const received = actual[name as keyof typeof actual];
    t.ok(Math.abs(received - value) <= 1e-12 * Math.abs(value), `${name}: ${received}, expected ${value}`);
  }
});

t.test('a model beside itself has no error, also with logits that overflow an exponential', async (t) => {
  const logits = Float32Array.from([1e4, -1e4, 0, 3, 3, 1e4, 1e4, 0, 0, 0]);
  const { perplexity, ...rest } = accuracyOf(compareLogits(logits, logits, [1, 0]));
  t.match(rest, { numTokens: 1, maxLogitError: 0, rmsLogitError: 0, topOneAgreement: 1, klDivergence: 0 });
  t.equal(perplexity, 1);
});

t.test('sums of windows add up', async (t) => {
  const [a, b] = [Float32Array.from(randomRows(4, 3).flat()), Float32Array.from(randomRows(4, 4).flat())];
  const one = compareLogits(a, b, [0, 1, 2, 3]);
  const both = addSums(one, compareLogits(b, b, [3, 2, 1, 0]));
  t.equal(both.numTokens, 6);
  t.equal(both.maxError, one.maxError);
  t.equal(accuracyOf(both).rmsLogitError, accuracyOf(one).rmsLogitError / Math.SQRT2);
  t.same(addSums(noSums, one), one);
});

t.test('windows cover a text; one token alone predicts nothing', async (t) => {
  t.same(windowsOf(10, 4), [
    [0, 4],
    [4, 8],
    [8, 10],
  ]);
  t.same(windowsOf(9, 4), [
    [0, 4],
    [4, 8],
  ]);
  t.same(windowsOf(1, 4), []);
});
