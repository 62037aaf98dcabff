/** The `tojson` filter of Transformers: Python's `json.dumps` with `ensure_ascii=False`. */
import { needInt } from './arguments.ts';
import type { Budget } from './budget.ts';
import { compare } from './compare.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { iterate } from './iterables.ts';
import { floatText, toText } from './text.ts';
import { Float, isTrue, textOf, typeName, type Value } from './values.ts';

interface JsonOptions {
  readonly ensureAscii: boolean;
  /** Indentation of one level; null for everything on one line. */
  readonly indent: string | null;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
}

/** The filter; the arguments are `ensure_ascii`, `indent`, `separators` and `sort_keys`. */
export function json(value: Value, [ensureAscii, indentation, separators, sortKeys]: readonly Value[], budget: Budget): string {
  const hasIndent = indentation !== undefined && indentation !== null;
  const [itemSeparator, keySeparator, ...others] =
    separators === undefined || separators === null ? [hasIndent ? ',' : ', ', ': '] : iterate(separators);
  if (typeof itemSeparator !== 'string' || typeof keySeparator !== 'string' || others.length > 0)
    throw new TemplateError('separators must be two str');
  const level = textOf(indentation) ?? (hasIndent ? spaces(needInt(indentation, 'indent'), budget) : '');
  return toJson(
    value,
    { ensureAscii: isTrue(ensureAscii), indent: hasIndent ? level : null, itemSeparator, keySeparator, sortKeys: isTrue(sortKeys) },
    budget,
  );
}

function spaces(count: number, budget: Budget): string {
  budget.reserve(Math.max(0, count));
  return ' '.repeat(Math.max(0, count));
}

/** @throws TemplateError for a value that JSON cannot represent. */
function toJson(value: Value, options: JsonOptions, budget: Budget, depth = 0): string {
  budget.step();
  if (value === null) return 'null';
  if (typeof value === 'boolean' || typeof value === 'number') return toText(value, budget).toLowerCase();
  const text = textOf(value);
  if (text !== undefined) return budget.take(quote(text, options));
  if (value instanceof Float) return floatJson(value.value);
  if (Array.isArray(value)) {
    const items = Array.from(value, (item) => toJson(item, options, budget, depth + 1));
    return wrap('[', ']', items, options, budget, depth);
  }
  if (value instanceof Dict) {
    const entries = [...value.entries()];
    if (options.sortKeys) entries.sort(([a], [b]) => compare(a, b));
    const items = entries.map(([key, item]) => {
      const name = quote(keyText(key, budget), options);
      return name + options.keySeparator + toJson(item, options, budget, depth + 1);
    });
    return wrap('{', '}', items, options, budget, depth);
  }
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
}

/** Python's names of the floats that JSON lacks. */
function floatJson(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  return Number.isFinite(value) ? floatText(value) : `${value}`;
}

function keyText(key: Value, budget: Budget): string {
  const text = textOf(key);
  if (text !== undefined) return text;
  if (key === null) return 'null';
  if (key instanceof Float) return floatJson(key.value);
  if (typeof key === 'boolean' || typeof key === 'number') return toText(key, budget).toLowerCase();
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

function quote(text: string, { ensureAscii }: JsonOptions): string {
  const quoted = JSON.stringify(text);
  if (!ensureAscii) return quoted;
  return quoted.replace(/[\u007f-\uffff]/g, (unit) => (unit === '\x7f' ? unit : `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`));
}

function wrap(open: string, close: string, items: readonly string[], options: JsonOptions, budget: Budget, depth: number): string {
  if (items.length === 0) return open + close;
  const { indent, itemSeparator } = options;
  if (indent === null) return budget.take(open + items.join(itemSeparator) + close);
  budget.reserve(items.length * indent.length * (depth + 1));
  const margin = `\n${indent.repeat(depth)}`;
  return budget.take(`${open}${margin}${indent}${items.join(`${itemSeparator}${margin}${indent}`)}${margin}${close}`);
}
