/** exp, log, random words and Gumbel noise: as accurate as documented, and identical on every processor. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, isas, sameBits, testing } from '../helpers/testing.ts';
import { philox } from '../references/sample.ts';

const withFma = isas.filter((isa) => isa !== 'portable');

/** The floats with these bits. */
const fromBits = (bits: Uint32Array): Float32Array => new Float32Array(bits.buffer);

/** Error of `value` in units in the last place of the float nearest to `exact`. */
function ulps(value: number, exact: number): number {
  const nearest = Math.fround(exact);
  if (value === nearest) return 0;
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.abs(nearest))));
  return Math.abs(value - exact) / 2 ** (exponent - 23);
}

test('exp is within 2 ulp, flushes what is not normal to zero, and keeps its corners', async (t) => {
  const integers = randomIntegers(1);
  const x = Float32Array.from({ length: 40_000 }, (_, i) =>
    i < 20_000 ? (integers(2 ** 32) / 2 ** 32) * 176 - 87.5 : (integers(2 ** 32) - 2 ** 31) / 2 ** 33,
  );
  for (const isa of isas) {
    const y = testing.map({ isa, function: 'exp', x });
    let worst = 0;
    for (const [i, value] of x.entries()) {
      const exact = Math.exp(value);
      if (exact < 2 ** -126) t.equal(at(y, i), 0);
      else if (exact < 3.4e38) worst = Math.max(worst, ulps(at(y, i), exact));
    }
    t.ok(worst < 2, `${isa}: ${worst} ulp`);
    const corners = Float32Array.of(0, -0, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, -200, 100, Number.NaN, -3e38, 3e38);
    t.same(
      [...testing.map({ isa, function: 'exp', x: corners })],
      [1, 1, 0, Number.POSITIVE_INFINITY, 0, Number.POSITIVE_INFINITY, Number.NaN, 0, Number.POSITIVE_INFINITY],
    );
  }
  const [first = '', ...others] = withFma;
  for (const isa of others) t.ok(sameBits(testing.map({ isa, function: 'exp', x }), testing.map({ isa: first, function: 'exp', x })), isa);
});

test('log is within 2 ulp, denormals included, and keeps its corners', async (t) => {
  const integers = randomIntegers(2);
  const positive = Uint32Array.from({ length: 40_000 }, (_, i) =>
    i % 2 === 0 ? integers(0x7f800000) : 0x3f800000 + integers(0x400000) - 0x200000,
  );
  const x = fromBits(positive);
  for (const isa of isas) {
    const y = testing.map({ isa, function: 'log', x });
    let worst = 0;
    for (const [i, value] of x.entries()) worst = Math.max(worst, ulps(at(y, i), Math.log(value)));
    t.ok(worst < 2, `${isa}: ${worst} ulp`);
    const corners = Float32Array.of(1, 0, -0, Number.POSITIVE_INFINITY, -1, Number.NEGATIVE_INFINITY, Number.NaN, 2 ** -149);
    const { NEGATIVE_INFINITY, NaN: nan } = Number;
    const expected = [0, NEGATIVE_INFINITY, NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, nan, nan, nan, Math.fround(Math.log(2 ** -149))];
    t.same([...testing.map({ isa, function: 'log', x: corners })], expected);
  }
  const [first = '', ...others] = withFma;
  for (const isa of others) t.ok(sameBits(testing.map({ isa, function: 'log', x }), testing.map({ isa: first, function: 'log', x })), isa);
});

test('Philox4x32-10 gives the words that Random123 publishes', async (t) => {
  const vectors: readonly (readonly [number[], bigint, number[]])[] = [
    [[0, 0, 0, 0], 0n, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    [[-1, -1, -1, -1], 2n ** 64n - 1n, [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    // Digits of pi; the key's first word is its low half.
    [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 0x299f31d0a4093822n, [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]],
  ];
  for (const [counter, key, words] of vectors) {
    t.same(philox(counter, key), words, 'the reference');
    for (const isa of isas) t.same([...testing.philox({ isa, counter: Int32Array.from(counter), key })], words, isa);
  }
  const integers = randomIntegers(3);
  for (let i = 0; i < 100; i++) {
    const counter = Int32Array.from({ length: 4 }, () => integers(2 ** 32));
    const key = (BigInt(integers(2 ** 32)) << 32n) | BigInt(integers(2 ** 32));
    for (const isa of isas) t.same([...testing.philox({ isa, counter, key })], philox([...counter], key), isa);
  }
});

test('Gumbel noise keeps its precision in both tails', async (t) => {
  const integers = randomIntegers(4);
  const edges = [0, 1, 2, 3, 0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffd, 0xfffffffe, 0xffffffff];
  const near = Array.from({ length: 30 }, (_, i) => [2 ** i, 2 ** 32 - 2 ** i, 2 ** 31 - 2 ** i, 2 ** 31 + 2 ** i]).flat();
  const words = Uint32Array.from([...edges, ...near, ...Array.from({ length: 20_000 }, () => integers(2 ** 32))]);
  for (const isa of isas) {
    const noise = testing.map({ isa, function: 'gumbel', x: fromBits(words) });
    let worst = 0;
    for (const [i, word] of words.entries()) {
      const exponential = word < 2 ** 31 ? -Math.log((word + 0.5) / 2 ** 32) : -Math.log1p(-(2 ** 32 - word - 0.5) / 2 ** 32);
      const exact = -Math.log(exponential);
      worst = Math.max(worst, Math.abs(at(noise, i) - exact) / Math.max(1, Math.abs(exact)));
    }
    t.ok(worst < 4e-7, `${isa}: off by ${worst}`);
    t.ok(noise.every(Number.isFinite), `${isa}: finite`);
  }
});
