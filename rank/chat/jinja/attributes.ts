/** `value.name`, `value[key]` and `value[a:b:c]` with Python's attributes and items, never JavaScript's properties. */
import { bind, bindExactly, absent as notGiven } from './arguments.ts';
import type { Budget } from './budget.ts';
import { isEqual } from './compare.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { Group, iterate, length, Range, View } from './iterables.ts';
import { numberAttribute } from './number-attributes.ts';
import { textMethod } from './text-methods.ts';
import { type Arguments, Callable, characters, Instance, Markup, Tuple, textOf, toInt, typeName, type Value } from './values.ts';

/** `value.name`; Undefined for an attribute that does not exist, and for one that the sandbox hides. */
export function getAttribute(value: Value, name: string, budget: Budget): Value {
  const attribute = findAttribute(value, name, budget);
  if (attribute !== undefined) return attribute;
  return value instanceof Dict && !isHidden(value, name) ? value.get(name) : undefined;
}

/** `value[key]`; a string key may name an attribute, as in Jinja. */
export function getItem(value: Value, key: Value, budget: Budget): Value {
  if (value === undefined) throw undefinedValue(String(textOf(key) ?? '[…]'));
  if (value instanceof Dict && !(Array.isArray(key) && !(key instanceof Tuple)) && !(key instanceof Dict) && value.has(key))
    return value.get(key);
  const index = toInt(key);
  if (index !== undefined) return itemAt(value, index, budget);
  const name = textOf(key);
  return name === undefined ? undefined : findAttribute(value, name, budget);
}

function itemAt(value: Value, index: number, budget: Budget): Value {
  const text = textOf(value);
  if (text !== undefined) {
    budget.step(1 + (text.length >> 6));
    const units = characters(text);
    const unit = units[index < 0 ? units.length + index : index];
    return value instanceof Markup && unit !== undefined ? new Markup(unit) : unit;
  }
  if (Array.isArray(value)) return value[index < 0 ? value.length + index : index];
  if (!(value instanceof Range)) return undefined;
  const at = index < 0 ? value.size + index : index;
  return at >= 0 && at < value.size ? value.at(at) : undefined;
}

/** Whether `value` has an attribute `name` in Python that the sandbox does not give to templates. */
function isHidden(value: Value, name: string): boolean {
  return (value instanceof Dict && changing.dict.includes(name)) || pythonInternal.has(name);
}

/** Attributes of every dict, beside its methods. */
const pythonInternal = new Set(
  (
    '__class__ __class_getitem__ __contains__ __delattr__ __delitem__ __dir__ __doc__ __eq__ __format__ __ge__ __getattribute__ __getitem__ ' +
    '__getstate__ __gt__ __hash__ __init__ __init_subclass__ __ior__ __iter__ __le__ __len__ __lt__ __ne__ __new__ __or__ __reduce__ ' +
    '__reduce_ex__ __repr__ __reversed__ __ror__ __setattr__ __setitem__ __sizeof__ __str__ __subclasshook__'
  ).split(' '),
);

function undefinedValue(name: string): TemplateError {
  return new TemplateError(`an undefined value has no attribute '${name}'`);
}

/** The attribute; `undefined` where there is none or the sandbox hides it. */
export function findAttribute(value: Value, name: string, budget: Budget): Value {
  if (value === undefined) throw undefinedValue(name);
  if (name.startsWith('_')) return undefined;
  if (typeof value === 'string' || value instanceof Markup) return callable(textMethod(value, name, budget));
  if (Array.isArray(value))
    return callable(listMethod(value, name, budget)) ?? (value instanceof Group ? value.attribute(name) : undefined);
  if (value instanceof Dict) return callable(dictMethod(value, name, budget));
  if (value instanceof Range && (name === 'count' || name === 'index')) {
    return callable((args) => listMethod([...value.iterate()], name, budget)?.(args));
  }
  return value instanceof Instance ? value.attribute(name, budget) : numberAttribute(value, name);
}

function callable(call: ((args: Arguments) => Value) | undefined): Callable | undefined {
  return call && new Callable(call, 'builtin_function_or_method');
}

function listMethod(list: readonly Value[], name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  const positions = (item: Value, from = 0, to = list.length) => {
    budget.step(list.length);
    return list.flatMap((other, i) => (i >= from && i < to && isEqual(other, item) ? [i] : []));
  };
  const bound = (at: Value | undefined, otherwise: number) => {
    const index = at === undefined ? otherwise : (toInt(at) ?? otherwise);
    return index < 0 ? Math.max(0, index + list.length) : index;
  };
  if (name === 'count') return (args) => positions(bind(name, ['value'], 1, args)[0]).length;
  if (name === 'copy' && !(list instanceof Tuple)) return (args) => bind(name, [], 0, args).concat(list);
  if (name !== 'index') return undefined;
  return (args) => {
    const [item, start, stop] = bind(name, ['value', 'start', 'stop'], 1, args);
    const [at] = positions(item, bound(start, 0), bound(stop, list.length));
    if (at === undefined) throw new TemplateError(`the value is not in the ${typeName(list as Value[])}`);
    return at;
  };
}

function dictMethod(dict: Dict, name: string, budget: Budget): ((args: Arguments) => Value) | undefined {
  if (name === 'keys' || name === 'values' || name === 'items') {
    return (args) => {
      bind(name, [], 0, args);
      budget.step(dict.size);
      return new View(dict, name);
    };
  }
  if (name === 'copy') return () => Dict.from(dict.entries());
  if (name === 'fromkeys') {
    return (args) => {
      const [keys, value] = bindExactly(name, ['iterable', 'value'], 1, args);
      return Dict.from(Array.from(iterate(keys as Value), (key) => [key, value === notGiven ? null : (value as Value)] as const));
    };
  }
  if (name !== 'get') return undefined;
  return (args) => {
    if (args.keywords.size > 0) throw new TemplateError('dict.get() takes no keyword arguments');
    const [key, otherwise] = bindExactly(name, ['key', 'default'], 1, args) as [Value, Value | typeof notGiven];
    return dict.has(key) ? dict.get(key) : otherwise === notGiven ? null : (otherwise as Value);
  };
}

/** Methods that change a value, which the sandbox hides. */
const changing = { dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'] };

/** `value[start:stop:step]`. */
export function getSlice(value: Value, bounds: readonly Value[], budget: Budget): Value {
  const text = textOf(value);
  if (value === undefined) throw undefinedValue('[:]');
  if (text === undefined && !Array.isArray(value) && !(value instanceof Range)) {
    throw new TemplateError(`'${typeName(value)}' object cannot be sliced`);
  }
  const size = length(value);
  budget.step(1 + (size >> 3));
  const { first, end, step } = sliceBounds(bounds, size);
  if (value instanceof Range) return new Range(value.at(first), value.at(end), value.step * step);
  const items: ArrayLike<Value> = text === undefined ? (value as Value[]) : characters(text);
  const slice: Value[] = value instanceof Tuple ? new Tuple() : [];
  for (let i = first; step > 0 ? i < end : i > end; i += step) slice.push(items[i]);
  if (text === undefined) return slice;
  const part = budget.take(slice.join(''));
  return value instanceof Markup ? new Markup(part) : part;
}

function sliceBounds(bounds: readonly Value[], size: number): { first: number; end: number; step: number } {
  const [start, stop, step = 1] = bounds.map((bound) => {
    if (bound === null) return undefined;
    const number = toInt(bound);
    if (number === undefined) throw new TemplateError(`slice indices must be integers or None, not ${typeName(bound)}`);
    return number;
  });
  if (step === 0) throw new TemplateError('slice step cannot be zero');
  const clamp = (bound: number) => {
    const [least, most] = step > 0 ? [0, size] : [-1, size - 1];
    return Math.min(most, Math.max(least, bound < 0 ? bound + size : bound));
  };
  const first = start === undefined ? (step > 0 ? 0 : size - 1) : clamp(start);
  const end = stop === undefined ? (step > 0 ? size : -1) : clamp(stop);
  return { first, end, step };
}
