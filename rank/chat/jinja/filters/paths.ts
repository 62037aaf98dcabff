/** Paths to parts of items, as `attribute` of a filter has them: `a.b.0`, or several with commas between them. */
import { getItem } from '../attributes.ts';
import type { Budget } from '../budget.ts';
import { toText } from '../text.ts';
import { textOf, type Value } from '../values.ts';

/** The value at a path; without a path, the item itself. `otherwise`, unless null, replaces each Undefined on the way. */
export function pathOf(item: Value, path: Value, budget: Budget, otherwise: Value = null): Value {
  if (path === null || path === undefined) return item;
  const text = textOf(path);
  const parts = text === undefined ? [path] : text.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  let value = item;
  for (const part of parts) {
    value = getItem(value, part, budget);
    if (value === undefined && otherwise !== null) value = otherwise;
  }
  return value;
}

/** The key of `sort`: a list of the values at its paths. */
export function pathsOf(item: Value, paths: Value, caseSensitive: Value, budget: Budget): Value {
  const all = textOf(paths) === undefined ? [paths] : toText(paths, budget).split(',');
  return all.map((path) => fold(pathOf(item, path, budget), caseSensitive));
}

/** A text in small letters, unless case matters. */
export function fold(value: Value, caseSensitive: Value): Value {
  return caseSensitive === true ? value : (textOf(value)?.toLowerCase() ?? value);
}
