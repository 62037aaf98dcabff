/** What Python iterates over beside lists: ranges, views of a dict, and iterators, which can be read once. */
import type { Budget } from './budget.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { characters, Instance, Markup, Tuple, typeName, type Value } from './values.ts';

/** `range(start, stop, step)`. */
export class Range extends Instance {
  readonly typeName = 'range';
  readonly start: number;
  readonly stop: number;
  readonly step: number;

  constructor(start: number, stop: number, step: number) {
    super();
    [this.start, this.stop, this.step] = [start, stop, step];
  }

  override get size(): number {
    return Math.max(0, Math.ceil((this.stop - this.start) / this.step));
  }

  /** Item `i`, from 0; its caller has checked the bounds. */
  at(i: number): number {
    return this.start + i * this.step;
  }

  override *iterate(): Generator<Value, void, undefined> {
    for (let i = 0; i < this.size; i++) yield this.at(i);
  }

  override attribute(name: string): Value {
    return name === 'start' || name === 'stop' || name === 'step' ? this[name] : undefined;
  }

  override text(): string {
    return `range(${this.start}, ${this.stop}${this.step === 1 ? '' : `, ${this.step}`})`;
  }
}

/** `dict.keys()`, `dict.values()` or `dict.items()`. */
export class View extends Instance {
  readonly kind: 'keys' | 'values' | 'items';
  readonly dict: Dict;

  constructor(dict: Dict, kind: View['kind']) {
    super();
    [this.dict, this.kind] = [dict, kind];
  }

  get typeName(): string {
    return `dict_${this.kind}`;
  }

  override get size(): number {
    return this.dict.size;
  }

  override *iterate(): Generator<Value, void, undefined> {
    for (const [key, value] of this.dict.entries()) {
      yield this.kind === 'keys' ? key : this.kind === 'values' ? value : pair(key, value);
    }
  }

  override text(repr: (value: Value) => string): string {
    return `${this.typeName}(${repr([...this.iterate()])})`;
  }
}

/** A generator: always true, without a length, and empty once it was read. */
export class Iter extends Instance {
  readonly typeName: string;
  readonly #iterator: Iterator<Value, void, undefined>;

  constructor(iterable: Iterable<Value>, name = 'generator') {
    super();
    this.typeName = name;
    this.#iterator = iterable[Symbol.iterator]() as Iterator<Value, void, undefined>;
  }

  /** Leaves the rest for later where a reader stops early. */
  override iterate(): Iterable<Value> {
    return { [Symbol.iterator]: () => ({ next: () => this.#iterator.next() }) };
  }
}

/** A tuple of `groupby`, whose parts have names. */
export class Group extends Tuple {
  attribute(name: string): Value {
    return name === 'grouper' ? this[0] : name === 'list' ? this[1] : undefined;
  }
}

export function pair(key: Value, value: Value): Tuple {
  return Tuple.of(key, value) as Tuple;
}

/** Items that a for loop iterates over. @throws TemplateError for a value that is not iterable. */
export function iterate(value: Value): Iterable<Value> {
  if (value === undefined) return [];
  if (Array.isArray(value)) return value;
  if (typeof value === 'string') return characters(value);
  if (value instanceof Markup) return characters(value.text);
  if (value instanceof Dict) return value.keys();
  const items = value instanceof Instance ? value.iterate() : null;
  if (items === null) throw new TemplateError(`'${typeName(value)}' object is not iterable`);
  return items;
}

/** A copy of the items, each charged as a step. */
export function itemsOf(value: Value, budget: Budget): Value[] {
  const list: Value[] = [];
  for (const item of iterate(value)) {
    budget.step();
    list.push(item);
  }
  return list;
}

/** `len(value)`. @throws TemplateError for a value without length. */
export function length(value: Value): number {
  if (value === undefined) return 0;
  if (typeof value === 'string') return characters(value).length;
  if (value instanceof Markup) return characters(value.text).length;
  if (Array.isArray(value)) return value.length;
  const size = value instanceof Dict || value instanceof Instance ? value.size : null;
  if (size === null) throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
  return size;
}

/** Whether a value has a length and items by index or key. */
export function isSequence(value: Value): boolean {
  if (value instanceof Instance) return value instanceof Range;
  return value === undefined || typeof value === 'string' || value instanceof Markup || Array.isArray(value) || value instanceof Dict;
}
