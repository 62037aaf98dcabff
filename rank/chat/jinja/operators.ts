/** Python's operators: no sum of text and number, and a remainder with the sign of its divisor. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { compare, Float, isEqual, isTrue, Tuple, toNumber, toText, typeName, type Value } from './values.ts';

/** `float` is the operator of a literal with a decimal point, which yields a float. */
export function runUnary(operator: string, value: Value): Value {
  if (operator === 'not') return !isTrue(value);
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  const result = operator === '-' ? -number : number;
  return value instanceof Float || operator === 'float' ? new Float(result) : integer(result);
}

export function runBinary(operator: string, left: Value, right: Value, budget: Budget): Value {
  switch (operator) {
    case '==':
      return isEqual(left, right);
    case '!=':
      return !isEqual(left, right);
    case '<':
      return compare(left, right, operator) < 0;
    case '<=':
      return compare(left, right, operator) <= 0;
    case '>':
      return compare(left, right, operator) > 0;
    case '>=':
      return compare(left, right, operator) >= 0;
    case '~':
      return budget.take(toText(left, budget) + toText(right, budget));
    default:
      return arithmetic(operator, left, right, budget);
  }
}

function arithmetic(operator: string, left: Value, right: Value, budget: Budget): Value {
  const [a, b] = [toNumber(left), toNumber(right)];
  if (a !== undefined && b !== undefined) return calculate(operator, a, b, left instanceof Float || right instanceof Float);
  if (operator === '+') {
    if (typeof left === 'string' && typeof right === 'string') {
      budget.reserve(left.length + right.length);
      return left + right;
    }
    if (Array.isArray(left) && Array.isArray(right) && left instanceof Tuple === right instanceof Tuple) {
      budget.step(left.length + right.length);
      return left.concat(right);
    }
  }
  if (operator === '*') {
    if (typeof left === 'string' || Array.isArray(left)) return repeat(left, right, budget);
    if (typeof right === 'string' || Array.isArray(right)) return repeat(right, left, budget);
  }
  if (left === undefined || right === undefined) throw new TemplateError(`an undefined value has no operator ${operator}`);
  throw new TemplateError(`unsupported operand types for ${operator}: '${typeName(left)}' and '${typeName(right)}'`);
}

function repeat(value: string | Value[], times: Value, budget: Budget): Value {
  if (typeof times !== 'number' && typeof times !== 'boolean') {
    throw new TemplateError(`can't multiply a sequence by '${typeName(times)}'`);
  }
  const count = Math.max(0, Number(times));
  if (typeof value === 'string') {
    budget.reserve(value.length * count);
    return value.repeat(count);
  }
  budget.step(value.length * count);
  return Array.from({ length: count }, () => value).flat();
}

function calculate(operator: string, a: number, b: number, isFloat: boolean): Value {
  if (b === 0 && /^[/%]/.test(operator)) throw new TemplateError('division by zero');
  const make = (value: number) => (isFloat ? new Float(value) : integer(value));
  switch (operator) {
    case '+':
      return make(a + b);
    case '-':
      return make(a - b);
    case '*':
      return make(a * b);
    case '/':
      return new Float(a / b);
    case '//':
      return make(Math.floor(a / b));
    case '%':
      return make(a - b * Math.floor(a / b));
    case '**':
      return b < 0 ? new Float(a ** b) : make(a ** b);
    default:
      throw new TemplateError(`no operator ${operator}`, 'template');
  }
}

/** Refuses results past the safe integers: Python's integers are unbounded, these are not. */
function integer(value: number): number {
  if (!Number.isSafeInteger(value)) throw new TemplateError(`expected integers below 2^53, not ${value}`, 'template');
  return value === 0 ? 0 : value;
}
