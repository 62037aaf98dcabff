/** Checks of external values, and the error for a wrong one. */
import t from 'tap';
import {
  boolean,
  type Check,
  checked,
  checkFields,
  integerIn,
  isObject,
  listOf,
  numberIn,
  numberWhere,
  oneOf,
  orNull,
  textFor,
} from '../../../protocol/checks.ts';
import { unexpected } from '../../../protocol/errors.ts';

const cases: readonly (readonly [what: string, check: Check<unknown>, right: readonly unknown[], wrong: readonly unknown[]])[] = [
  ['integers', integerIn(-1, 3), [-1, 0, 3], [-2, 4, 0.5, Number.NaN, '1', 1n, null, undefined, [1]]],
  ['numbers in a range', numberIn(0, 1), [0, 0.5, 1], [-0.1, 1.1, Number.NaN, '0', null]],
  ['numbers of a kind', numberWhere('a number above 0', (value) => value > 0), [1e-9, Infinity], [0, Number.NaN, true, '1']],
  ['booleans', boolean, [true, false], [0, 'true', null]],
  ['choices', oneOf('a', 'b'), ['a', 'b'], ['c', '', ['a'], null]],
  ['texts', textFor('a path'), ['x', ' '], ['', 5, null]],
  ['null', orNull(integerIn(0, 1)), [null, 0, 1], [2, '0']],
];

for (const [what, check, right, wrong] of cases) {
  t.test(what, async (t) => {
    for (const value of right) t.equal(checked(value, check, 'x', 'ERR_USAGE'), value);
    for (const value of wrong) {
      const message = new RegExp(`^Expected ${check.expected} for x but received `);
      t.throws(() => checked(value, check, 'x', 'ERR_USAGE'), { code: 'ERR_USAGE', message });
    }
  });
}

t.test('lists are copied, and a hole is no item', async (t) => {
  const list = listOf('bits', integerIn(0, 1));
  const given = [0, 1];
  t.same(list.read(given), given);
  t.not(list.read(given), given);
  // biome-ignore lint/suspicious/noSparseArray: what is tested
  for (const wrong of [[0, 2], [0, , 1], 'no', { length: 0 }]) t.equal(list.read(wrong), undefined);
});

t.test('fields: unknown ones and wrong ones by name, absent ones not at all', async (t) => {
  const checks = { size: integerIn(1, 2), flag: boolean, elsewhere: null };
  const check = (object: object) => () => checkFields(object, checks, { plural: 'options', prefix: 'my.' }, 'ERR_REQUEST');
  t.doesNotThrow(check({ size: 2, flag: undefined, elsewhere: 'anything' }));
  t.throws(check({ flag: 1 }), { code: 'ERR_REQUEST', message: 'Expected true or false for my.flag but received 1' });
  t.throws(check({ toString: 1 }), {
    code: 'ERR_REQUEST',
    message: "Expected options among size, flag, elsewhere but received 'toString'",
  });
});

t.test('objects are neither arrays nor null', async (t) => {
  t.same([{}, Object.create(null), [], null, 'x', undefined].map(isObject), [true, true, false, false, false, false]);
});

t.test('the one message', async (t) => {
  t.match(unexpected('ERR_CONFIG', 'an apple', 'lunch', { a: 1 }), {
    name: 'NdsError',
    code: 'ERR_CONFIG',
    message: 'Expected an apple for lunch but received {"a":1}',
  });
  t.equal(unexpected('ERR_CONFIG', 'an apple', null, undefined).message, 'Expected an apple but received undefined');
});
