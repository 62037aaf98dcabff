/** The functions that Transformers gives to every template. */
import { bind, bindExactly, needText, absent as notGiven } from './arguments.ts';
import type { Budget } from './budget.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { iterate, Range } from './iterables.ts';
import { strftime } from './strftime.ts';
import { toText } from './text.ts';
import { type Arguments, Callable, Instance, Namespace, Tuple, toInt, typeName, type Value } from './values.ts';

/** Max length of a `range`, as in Jinja's sandbox. */
const maxRange = 100_000;

function range({ positional, keywords }: Arguments): Value {
  if (keywords.size > 0) throw new TemplateError('range() takes no keyword arguments');
  if (positional.length < 1 || positional.length > 3) throw new TemplateError(`range expected 1 to 3 arguments, got ${positional.length}`);
  const [a = 0, b = 0, step = 1] = positional.map((bound) => {
    const number = toInt(bound);
    if (number === undefined) throw new TemplateError(`range() takes integers, not ${typeName(bound)}`);
    return number;
  });
  if (step === 0) throw new TemplateError('range() arg 3 must not be zero');
  const made = positional.length === 1 ? new Range(0, a, 1) : new Range(a, b, step);
  if (made.size > maxRange) throw new TemplateError(`a range of more than ${maxRange}`);
  return made;
}

/** `dict()`: of a mapping or of pairs, and of keywords. */
function dict({ positional, keywords }: Arguments): Dict {
  if (positional.length > 1) throw new TemplateError(`dict expected at most 1 argument, got ${positional.length}`);
  const [source] = positional;
  const made = new Dict();
  if (positional.length > 0 && source === undefined) return Dict.from(keywords);
  const entries = source instanceof Dict ? source.entries() : Array.from(iterate(source), (item) => [...iterate(item)]);
  for (const entry of entries) {
    if (entry.length !== 2) throw new TemplateError(`a pair has ${entry.length} items; 2 are required`);
    made.set(entry[0], entry[1]);
  }
  for (const [key, value] of keywords) made.set(key, value);
  return made;
}

/** `joiner(sep)`: nothing on the first call, then the separator. */
class Joiner extends Callable {
  constructor(separator: Value) {
    let wasUsed = false;
    super((args) => {
      bind('joiner', [], 0, args);
      if (wasUsed) return separator;
      wasUsed = true;
      return '';
    }, 'Joiner');
    this.#separator = separator;
    this.#wasUsed = () => wasUsed;
  }

  readonly #separator: Value;
  readonly #wasUsed: () => boolean;

  override attribute(name: string): Value {
    return name === 'sep' ? this.#separator : name === 'used' ? this.#wasUsed() : undefined;
  }
}

/** `cycler(*items)`. */
class Cycler extends Instance {
  readonly typeName = 'Cycler';
  readonly #items: readonly Value[];
  #at = 0;

  constructor(items: readonly Value[]) {
    super();
    if (items.length === 0) throw new TemplateError('at least one item has to be provided to cycler');
    this.#items = items;
  }

  override attribute(name: string): Value {
    if (name === 'current') return this.#items[this.#at];
    if (name === 'pos') return this.#at;
    if (name === 'items') return Tuple.from(this.#items) as Tuple;
    if (name === 'next') return new Callable((args) => this.#move(args, (this.#at + 1) % this.#items.length), 'method');
    if (name !== 'reset') return undefined;
    return new Callable((args) => {
      this.#move(args, 0);
      return null;
    }, 'method');
  }

  #move(args: Arguments, to: number): Value {
    bind('cycler', [], 0, args);
    const item = this.#items[this.#at];
    this.#at = to;
    return item;
  }
}

/** The functions by name. `raise_exception` alone blames the messages: it is how a template refuses them. */
export function makeGlobals(now: Date, budget: Budget): [name: string, value: Value][] {
  const functions: Record<string, (args: Arguments) => Value> = {
    range,
    dict,
    namespace: (args) => new Namespace(dict(args)),
    joiner: (args) => {
      const [separator] = bindExactly('joiner', ['sep'], 0, args);
      return new Joiner(separator === notGiven ? ', ' : (separator as Value));
    },
    cycler: ({ positional, keywords }) => {
      if (keywords.size > 0) throw new TemplateError('cycler() takes no keyword arguments');
      return new Cycler(positional);
    },
    lipsum: () => {
      throw new TemplateError('lipsum is not supported: a prompt is the same in every run');
    },
    raise_exception: (args) => {
      throw new TemplateError(toText(bind('raise_exception', ['message'], 1, args)[0], budget), 'messages');
    },
    strftime_now: (args) => strftime(now, needText(bind('strftime_now', ['format'], 1, args)[0], 'the format of strftime_now')),
  };
  return Object.entries(functions).map(([name, call]) => [name, new Callable(call)]);
}
