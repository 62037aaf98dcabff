/** Equality, order and membership as in Python. */
import type { Budget } from './budget.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { iterate, Range, View } from './iterables.ts';
import { Tuple, textOf, toNumber, typeName, type Value } from './values.ts';

export function isEqual(a: Value, b: Value): boolean {
  const [x, y] = [toNumber(a), toNumber(b)];
  if (x !== undefined || y !== undefined) return x === y;
  const text = textOf(a);
  if (text !== undefined) return text === textOf(b);
  if (Array.isArray(a) && Array.isArray(b)) {
    return a instanceof Tuple === b instanceof Tuple && a.length === b.length && a.every((item, i) => isEqual(item, b[i]));
  }
  if (a instanceof Dict && b instanceof Dict) {
    return a.size === b.size && [...a.entries()].every(([key, value]) => b.has(key) && isEqual(value, b.get(key)));
  }
  if (a instanceof Range && b instanceof Range) {
    return a.size === b.size && (a.size === 0 || (a.start === b.start && (a.size === 1 || a.step === b.step)));
  }
  return a === b;
}

/** Negative, zero or positive, as `a` sorts before, with or after `b`; NaN where Python finds neither. */
export function compare(a: Value, b: Value, operator = '<'): number {
  const [x, y] = [toNumber(a), toNumber(b)];
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : x === y ? 0 : Number.NaN;
  const [text, other] = [textOf(a), textOf(b)];
  if (text !== undefined && other !== undefined) return compareText(text, other);
  if (Array.isArray(a) && Array.isArray(b) && a instanceof Tuple === b instanceof Tuple) {
    const at = a.findIndex((item, i) => i >= b.length || !isEqual(item, b[i]));
    return at < 0 || at >= b.length ? a.length - b.length : compare(a[at], b[at], operator);
  }
  throw new TemplateError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** Order by code points, as in Python; UTF-16 order puts U+FFFF after U+10000. */
function compareText(a: string, b: string): number {
  let i = 0;
  while (i < a.length && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  if (i === a.length || i === b.length) return a.length - b.length;
  if (i > 0 && /[\udc00-\udfff]/.test(a.charAt(i)) && /[\ud800-\udbff]/.test(a.charAt(i - 1))) i--;
  return (a.codePointAt(i) ?? 0) - (b.codePointAt(i) ?? 0);
}

/** Whether `item in container`. */
export function contains(container: Value, item: Value, budget: Budget): boolean {
  const text = textOf(container);
  if (text !== undefined) {
    const part = textOf(item);
    if (part === undefined) throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    budget.step(1 + (text.length >> 6));
    return text.includes(part);
  }
  if (container instanceof Dict) return container.has(item);
  if (container instanceof View && container.kind === 'keys') return container.dict.has(item);
  for (const other of iterate(container)) {
    budget.step();
    if (isEqual(other, item)) return true;
  }
  return false;
}
