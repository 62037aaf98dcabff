/** The `loop` of a for loop, which reads ahead only as far as it is asked to. */
import { bind } from './arguments.ts';
import type { Budget } from './budget.ts';
import { isEqual } from './compare.ts';
import { TemplateError } from './errors.ts';
import { length } from './iterables.ts';
import { type Arguments, Callable, Instance, Tuple, type Value } from './values.ts';

/** Renders the body of a recursive loop for other items. */
export type Recurse = (items: Value, depth0: number) => Value;

export class Loop extends Callable {
  readonly #source: Value;
  readonly #budget: Budget;
  #iterator: Iterator<Value, unknown, undefined>;
  /** Items that were read ahead. */
  readonly #ahead: Value[] = [];
  readonly depth0: number;
  index0 = -1;
  #length: number | null = null;
  #before: Value = undefined;
  #current: Value = undefined;
  #changed: Tuple | null = null;

  /** @param source - what is iterated over, if that has a length of its own; else Undefined */
  constructor(items: Iterable<Value>, source: Value, recurse: Recurse | null, depth0: number, budget: Budget) {
    super((args) => {
      if (recurse === null) throw new TemplateError("a loop that is called needs the 'recursive' marker");
      return recurse(bind('loop', ['iterable'], 1, args)[0], depth0 + 1);
    }, 'LoopContext');
    this.#iterator = items[Symbol.iterator]() as Iterator<Value, unknown, undefined>;
    this.#source = source;
    this.depth0 = depth0;
    this.#budget = budget;
  }

  /** Moves on; null at the end. */
  next(): { readonly item: Value } | null {
    if (!this.#hasNext()) return null;
    const item = this.#ahead.shift();
    this.index0++;
    this.#before = this.#current;
    this.#current = item;
    return { item };
  }

  #hasNext(): boolean {
    if (this.#ahead.length > 0) return true;
    const { done, value } = this.#iterator.next();
    if (done !== true) this.#ahead.push(value as Value);
    return done !== true;
  }

  override get size(): number {
    if (this.#length !== null) return this.#length;
    const hasLength =
      typeof this.#source === 'string' || Array.isArray(this.#source) || (this.#source instanceof Instance && this.#source.size !== null);
    if (hasLength) {
      this.#length = length(this.#source);
      return this.#length;
    }
    for (let next = this.#iterator.next(); next.done !== true; next = this.#iterator.next()) {
      this.#budget.step();
      this.#ahead.push(next.value as Value);
    }
    this.#length = this.#ahead.length + this.index0 + 1;
    return this.#length;
  }

  override attribute(name: string): Value {
    switch (name) {
      case 'index0':
        return this.index0;
      case 'index':
        return this.index0 + 1;
      case 'revindex':
        return this.size - this.index0;
      case 'revindex0':
        return this.size - this.index0 - 1;
      case 'first':
        return this.index0 === 0;
      case 'last':
        return !this.#hasNext();
      case 'length':
        return this.size;
      case 'previtem':
        return this.#before;
      case 'nextitem':
        return this.#hasNext() ? this.#ahead[0] : undefined;
      case 'depth':
        return this.depth0 + 1;
      case 'depth0':
        return this.depth0;
      case 'cycle':
        return new Callable((args) => this.#cycle(args), 'method');
      case 'changed':
        return new Callable((args) => this.#hasChanged(args), 'method');
      default:
        return undefined;
    }
  }

  override text(): string {
    return `<LoopContext ${this.index0 + 1}/${this.size}>`;
  }

  #cycle({ positional }: Arguments): Value {
    if (positional.length === 0) throw new TemplateError('no items for cycling given');
    return positional[this.index0 % positional.length];
  }

  #hasChanged({ positional }: Arguments): boolean {
    const values = Tuple.from(positional) as Tuple;
    if (this.#changed !== null && isEqual(this.#changed, values)) return false;
    this.#changed = values;
    return true;
  }
}
