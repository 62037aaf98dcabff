/** Attributes and methods of Python's int, bool and float. */
import { bind } from './arguments.ts';
import { integer } from './operators.ts';
import { Callable, Float, Tuple, toNumber, type Value } from './values.ts';

/** The attribute; `undefined` where there is none, and for a value that is no number. */
export function numberAttribute(value: Value, name: string): Value {
  const number = toNumber(value);
  if (number === undefined) return undefined;
  const isFloat = value instanceof Float;
  const same = isFloat ? value : number;
  const method = (run: () => Value) =>
    new Callable((args) => {
      bind(name, [], 0, args);
      return run();
    }, 'builtin_function_or_method');
  switch (name) {
    case 'real':
      return same;
    case 'imag':
      return isFloat ? new Float(0) : 0;
    case 'conjugate':
      return method(() => same);
    case 'numerator':
      return isFloat ? undefined : number;
    case 'denominator':
      return isFloat ? undefined : 1;
    case 'bit_length':
      return isFloat ? undefined : method(() => (number === 0 ? 0 : Math.abs(number).toString(2).length));
    case 'bit_count':
      return isFloat ? undefined : method(() => Math.abs(number).toString(2).replaceAll('0', '').length);
    case 'is_integer':
      return isFloat ? method(() => Number.isInteger(number)) : undefined;
    case 'as_integer_ratio':
      return method(() => ratio(number));
    default:
      return undefined;
  }
}

function ratio(number: number): Value {
  let [numerator, denominator] = [number, 1];
  while (!Number.isInteger(numerator) && denominator < 2 ** 53) [numerator, denominator] = [numerator * 2, denominator * 2];
  return Tuple.of(integer(numerator), integer(denominator)) as Tuple;
}
