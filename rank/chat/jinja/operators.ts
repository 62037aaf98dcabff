/** Python's operators: no sum of text and number, and a remainder with the sign of its divisor. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { escapeOperand } from './html.ts';
import { formatPercent } from './percent-format.ts';
import { Float, Markup, Tuple, textOf, toInt, toNumber, typeName, type Value } from './values.ts';

export function runUnary(operator: string, value: Value): Value {
  const number = toNumber(value);
  if (number === undefined) throw new TemplateError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  const result = operator === '-' ? -number : number;
  return value instanceof Float ? new Float(result) : integer(result);
}

/** An arithmetic operator. */
export function runBinary(operator: string, left: Value, right: Value, budget: Budget): Value {
  const [a, b] = [toNumber(left), toNumber(right)];
  if (a !== undefined && b !== undefined) return calculate(operator, a, b, left instanceof Float || right instanceof Float);
  if (operator === '%' && textOf(left) !== undefined) return formatPercent(left, right, budget);
  if (left === undefined || right === undefined) throw new TemplateError(`an undefined value is an operand of ${operator}`);
  if (operator === '+') {
    const sum = concatenate(left, right, budget);
    if (sum !== undefined) return sum;
  }
  if (operator === '*') {
    if (isRepeatable(left)) return repeat(left, right, budget);
    if (isRepeatable(right)) return repeat(right, left, budget);
  }
  throw new TemplateError(`unsupported operand types for ${operator}: '${typeName(left)}' and '${typeName(right)}'`);
}

function concatenate(left: Value, right: Value, budget: Budget): Value {
  const [text, other] = [textOf(left), textOf(right)];
  if (text !== undefined && other !== undefined) {
    budget.reserve(text.length + other.length);
    if (typeof left === 'string' && typeof right === 'string') return left + right;
    return new Markup(escapeOperand(left, budget) + escapeOperand(right, budget));
  }
  if (Array.isArray(left) && Array.isArray(right) && left instanceof Tuple === right instanceof Tuple) {
    budget.step(left.length + right.length);
    return left.concat(right);
  }
  return undefined;
}

function isRepeatable(value: Value): value is string | Markup | Value[] {
  return typeof value === 'string' || value instanceof Markup || Array.isArray(value);
}

function repeat(value: string | Markup | Value[], times: Value, budget: Budget): Value {
  const number = toInt(times);
  if (number === undefined) throw new TemplateError(`can't multiply a sequence by '${typeName(times)}'`);
  const count = Math.max(0, number);
  if (!Array.isArray(value)) {
    const text = textOf(value) ?? '';
    budget.reserve(text.length * count);
    return typeof value === 'string' ? text.repeat(count) : new Markup(text.repeat(count));
  }
  budget.step(value.length * count);
  const list: Value[] = value instanceof Tuple ? new Tuple() : [];
  for (let i = 0; i < count; i++) for (const item of value) list.push(item);
  return list;
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
      return make(floorDivide(a, b));
    case '%':
      return make(remainder(a, b));
    case '**':
      return power(a, b, isFloat);
    default:
      throw new TemplateError(`no operator ${operator}`);
  }
}

/** Python's `a % b`. */
export function remainder(a: number, b: number): number {
  const rest = a % b;
  if (rest === 0) return b < 0 || Object.is(b, -0) ? -0 : 0;
  return rest < 0 === b < 0 ? rest : rest + b;
}

function floorDivide(a: number, b: number): number {
  const quotient = (a - remainder(a, b)) / b;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

function power(a: number, b: number, isFloat: boolean): Value {
  if (a === 0 && b < 0) throw new TemplateError('0.0 cannot be raised to a negative power');
  if (a < 0 && !Number.isInteger(b) && Number.isFinite(b))
    throw new TemplateError('a complex number, which ** yields here, is not supported');
  if (!isFloat && b >= 0) return integer(a ** b);
  const result = a === 1 || b === 0 ? 1 : a ** b;
  if (Number.isFinite(a) && Number.isFinite(b) && !Number.isFinite(result)) throw new TemplateError('the result of ** is too large');
  return new Float(result);
}

/** Refuses results past the safe integers: Python's integers are unbounded, these are not. */
export function integer(value: number): number {
  if (!Number.isSafeInteger(value)) throw new TemplateError(`expected integers below 2^53, not ${value}`);
  return value === 0 ? 0 : value;
}
