/** The `tojson` filter of Transformers: Python's `json.dumps` with `ensure_ascii=False`. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { compare, Float, floatText, toText, typeName, type Value } from './values.ts';

export interface JsonOptions {
  readonly ensureAscii: boolean;
  /** Indentation of one level; null for everything on one line. */
  readonly indent: string | null;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
}

/** @throws TemplateError for a value that JSON cannot represent. */
export function toJson(value: Value, options: JsonOptions, budget: Budget, depth = 0): string {
  budget.step();
  if (value === null) return 'null';
  if (typeof value === 'boolean' || typeof value === 'number') return toText(value, budget).toLowerCase();
  if (typeof value === 'string') return budget.take(quote(value, options));
  if (value instanceof Float) return floatJson(value.value);
  if (Array.isArray(value)) {
    return wrap(
      '[',
      ']',
      value.map((item) => toJson(item, options, budget, depth + 1)),
      options,
      budget,
      depth,
    );
  }
  if (value instanceof Map) {
    const entries = [...value];
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
  if (typeof key === 'string') return key;
  if (key === null) return 'null';
  if (typeof key === 'boolean' || typeof key === 'number' || key instanceof Float) return toText(key, budget).toLowerCase();
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

function quote(text: string, { ensureAscii }: JsonOptions): string {
  const json = JSON.stringify(text);
  if (!ensureAscii) return json;
  return json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function wrap(open: string, close: string, items: readonly string[], options: JsonOptions, budget: Budget, depth: number): string {
  if (items.length === 0) return open + close;
  const { indent, itemSeparator } = options;
  if (indent === null) return budget.take(open + items.join(itemSeparator) + close);
  budget.reserve(items.length * indent.length * (depth + 1));
  const margin = `\n${indent.repeat(depth)}`;
  return budget.take(`${open}${margin}${indent}${items.join(`${itemSeparator}${margin}${indent}`)}${margin}${close}`);
}
