/** Sampling parameters: defaults, ranges and refusals by name. */
import t from 'tap';
import { describe, resolveSamplingParams } from '../../rank/sampling-params.ts';

t.test('absent parameters take their defaults, and the seed is drawn', async (t) => {
  const { seed, ...others } = resolveSamplingParams();
  t.same(others, { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 16, stop: [], ignoreEos: false });
  t.ok(Number.isSafeInteger(seed) && seed >= 0, `${seed} goes through JSON`);
  t.not(resolveSamplingParams().seed, resolveSamplingParams().seed);
  const undefinedOnly = resolveSamplingParams({ temperature: undefined, seed: undefined, stop: undefined });
  t.match(undefinedOnly, others);
});

t.test('values in range are kept', async (t) => {
  const given = { temperature: 0, topK: 5, topP: 0.5, minP: 1, maxTokens: 1, seed: 7, stop: ['a', 'b\n'], ignoreEos: true };
  t.same(resolveSamplingParams(given), given);
  t.equal(resolveSamplingParams({ topK: -1 }).topK, 0, '-1 means all, as 0 does');
  t.same(resolveSamplingParams({ stop: 'end' }).stop, ['end']);
  t.same(resolveSamplingParams({ stop: [] }).stop, []);
});

t.test('defaults of the model stand in for what is absent, and only for that', async (t) => {
  const defaults = { temperature: 0.5, topK: 20, maxTokens: 99 };
  t.match(resolveSamplingParams({}, defaults), { ...defaults, topP: 1, minP: 0 });
  t.match(resolveSamplingParams({ temperature: 0, topK: undefined, maxTokens: 16 }, defaults), { temperature: 0, topK: 20, maxTokens: 16 });
  t.throws(() => resolveSamplingParams({ temperature: null }, defaults), { code: 'ERR_REQUEST', message: /temperature but received null/ });
});

t.test('a seed is 64 bits, and a bigint only where a number would lose some', async (t) => {
  t.equal(resolveSamplingParams({ seed: 12n }).seed, 12);
  t.equal(resolveSamplingParams({ seed: 2n ** 64n - 1n }).seed, 2n ** 64n - 1n);
  t.equal(resolveSamplingParams({ seed: Number.MAX_SAFE_INTEGER }).seed, Number.MAX_SAFE_INTEGER);
});

t.test('what is out of range, of a wrong type or unknown is refused by name', async (t) => {
  const wrong: Record<string, unknown[]> = {
    temperature: [-0.1, Number.NaN, Number.POSITIVE_INFINITY, 1e-9, 1e9, '1', null, true],
    topK: [-2, 1.5, Number.NaN, 2 ** 31, '3', null],
    topP: [0, -0.1, 1.0001, Number.NaN, 1e-60, '0.5', null],
    minP: [-0.1, 1.1, Number.NaN, '0', null],
    maxTokens: [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '5', null],
    seed: [-1, 1.5, Number.NaN, 2 ** 53, 2n ** 64n, -1n, '1', null],
    stop: ['', [''], [1], 5, null, ['a', ''], 'bad\ud800'],
    ignoreEos: [1, 'true', null],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      t.throws(
        () => resolveSamplingParams({ [name]: value }),
        { code: 'ERR_REQUEST', message: new RegExp(`for ${name} but received `) },
        `${name} = ${describe(value)}`,
      );
    }
  }
  t.throws(() => resolveSamplingParams({ top_k: 4 }), { code: 'ERR_REQUEST', message: /among temperature, topK, .* but received 'top_k'/ });
  t.throws(() => resolveSamplingParams({ toString: 4 }), { code: 'ERR_REQUEST' });
  for (const params of [null, 4, 'greedy', []])
    t.throws(() => resolveSamplingParams(params), { code: 'ERR_REQUEST', message: /Expected an object/ });
});

t.test('values are described shortly, whatever they are', async (t) => {
  const circular: Record<string, unknown> = {};
  circular['self'] = circular;
  t.same([Number.NaN, 5n, undefined, 'a"b', () => 1, Symbol('x'), circular, 'x'.repeat(100)].map(describe), [
    'NaN',
    '5n',
    'undefined',
    '"a\\"b"',
    'a function',
    'a symbol',
    'a value of type object',
    `"${'x'.repeat(79)}…`,
  ]);
});
