/** `value.name`, `value[key]` and `value[a:b:c]` with Python's attributes and items, never JavaScript's properties. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { bind, textMethod } from './text-methods.ts';
import { type Arguments, Callable, characters, Float, isEqual, type Loop, Namespace, Tuple, typeName, type Value } from './values.ts';

/** `value.name`; Undefined for an attribute that does not exist. */
export function getAttribute(value: Value, name: string, budget: Budget): Value {
  if (value instanceof Map && value.has(name) && !isDictMethod(name)) return value.get(name);
  return findAttribute(value, name, budget);
}

/** `value[key]`; a string key may name an attribute, as in Jinja. */
export function getItem(value: Value, key: Value, budget: Budget): Value {
  if (value instanceof Map && value.has(key)) return value.get(key);
  if (typeof key === 'number' && (typeof value === 'string' || Array.isArray(value))) {
    if (typeof value === 'string') budget.step(1 + (value.length >> 6));
    const items: ArrayLike<Value> = typeof value === 'string' ? characters(value) : value;
    return items[key < 0 ? items.length + key : key];
  }
  if (value === undefined || typeof key === 'string') return findAttribute(value, String(key), budget);
  return undefined;
}

function findAttribute(value: Value, name: string, budget: Budget): Value {
  if (value === undefined) throw new TemplateError(`undefined value has no attribute '${name}'`);
  if (typeof value === 'string') return callable(textMethod(value, name, budget));
  if (Array.isArray(value)) return callable(listMethod(value, name, budget));
  if (value instanceof Map) return callable(dictMethod(value, name, budget));
  if (value instanceof Namespace) return value.attributes.get(name);
  if (isLoop(value)) return loopAttribute(value, name);
  return undefined;
}

function callable(call: ((args: Arguments) => Value) | undefined): Callable | undefined {
  return call && new Callable(call);
}

function isLoop(value: Value): value is Loop {
  return typeof value === 'object' && value !== null && 'kind' in value;
}

function loopAttribute({ items, index0 }: Loop, name: string): Value {
  const { length } = items;
  switch (name) {
    case 'index0':
      return index0;
    case 'index':
      return index0 + 1;
    case 'revindex':
      return length - index0;
    case 'revindex0':
      return length - index0 - 1;
    case 'first':
      return index0 === 0;
    case 'last':
      return index0 === length - 1;
    case 'length':
      return length;
    case 'previtem':
      return items[index0 - 1];
    case 'nextitem':
      return items[index0 + 1];
    // Only recursive loops are deeper, and those are not supported.
    case 'depth':
      return 1;
    case 'depth0':
      return 0;
    case 'cycle':
      return new Callable(({ positional }) => positional[index0 % positional.length]);
    default:
      return undefined;
  }
}

function listMethod(list: readonly Value[], name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const positions = (item: Value) => {
    budget.step(list.length);
    return list.flatMap((other, i) => (isEqual(other, item) ? [i] : []));
  };
  if (name === 'count') return (args) => positions(bind(name, ['value'], 1, args)[0]).length;
  if (name !== 'index') return refuseMethod('list', name);
  return (args) => {
    const [at] = positions(bind(name, ['value'], 1, args)[0]);
    if (at === undefined) throw new TemplateError('value is not in list');
    return at;
  };
}

/** Whether `dict.name` is a method even if the dict has an item of that name. */
function isDictMethod(name: string): boolean {
  return changing.dict.includes(name) || ['get', 'items', 'keys', 'values'].includes(name);
}

function dictMethod(dict: ReadonlyMap<Value, Value>, name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const list = (items: () => Value[]) => (args: Arguments) => {
    bind(name, [], 0, args);
    budget.step(dict.size);
    return items();
  };
  if (name === 'keys') return list(() => [...dict.keys()]);
  if (name === 'values') return list(() => [...dict.values()]);
  if (name === 'items') return list(() => [...dict].map(([key, value]) => Tuple.of(key, value) as Tuple));
  if (name !== 'get') return refuseMethod('dict', name);
  return (args) => {
    const [key, absent = null] = bind(name, ['key', 'default'], 1, args);
    return dict.has(key) ? dict.get(key) : absent;
  };
}

const changing = {
  list: ['append', 'clear', 'copy', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort'],
  dict: ['clear', 'copy', 'fromkeys', 'pop', 'popitem', 'setdefault', 'update'],
};

/** Refuses Python's other methods, most of which the sandbox of Transformers refuses too. */
function refuseMethod(type: 'list' | 'dict', name: string): undefined {
  if (changing[type].includes(name)) throw new TemplateError(`${type}.${name} is not supported`, 'template');
}

/** `value[start:stop:step]`. */
export function getSlice(value: Value, bounds: readonly Value[], budget: Budget): Value {
  if (typeof value !== 'string' && !Array.isArray(value)) throw new TemplateError(`'${typeName(value)}' object cannot be sliced`);
  const items: ArrayLike<Value> = typeof value === 'string' ? characters(value) : value;
  budget.step(1 + (items.length >> 3));
  const [start, stop, step = 1] = bounds.map((bound) => {
    if (bound === undefined || bound === null) return undefined;
    if (typeof bound !== 'number' || (bound as Value) instanceof Float) throw new TemplateError('slice indices must be integers');
    return bound;
  });
  if (step === 0) throw new TemplateError('slice step cannot be zero');
  const clamp = (bound: number) => {
    const [least, most] = step > 0 ? [0, items.length] : [-1, items.length - 1];
    return Math.min(most, Math.max(least, bound < 0 ? bound + items.length : bound));
  };
  const first = start === undefined ? (step > 0 ? 0 : items.length - 1) : clamp(start);
  const end = stop === undefined ? (step > 0 ? items.length : -1) : clamp(stop);
  const slice: Value[] = value instanceof Tuple ? new Tuple() : [];
  for (let i = first; step > 0 ? i < end : i > end; i += step) slice.push(items[i]);
  return typeof value === 'string' ? budget.take(slice.join('')) : slice;
}
