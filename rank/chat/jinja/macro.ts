/** How a macro takes its arguments. */

import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { type Node, type Statement, walk } from './nodes.ts';
import { type Arguments, Callable, Tuple, type Value } from './values.ts';

/** What the body of a macro reads beside its parameters. */
interface SpecialNames {
  readonly caller: boolean;
  readonly kwargs: boolean;
  readonly varargs: boolean;
}

const known = new WeakMap<readonly Statement[], SpecialNames>();

/** Which of `caller`, `kwargs` and `varargs` a body reads before it assigns to them. */
function specialNames(body: readonly Statement[], parameters: readonly string[]): SpecialNames {
  const cached = known.get(body);
  if (cached !== undefined) return cached;
  const read = new Set<string>();
  const assigned = new Set(parameters);
  for (const statement of body) for (const node of walk(statement, ({ type }) => type === 'Block')) note(node, read, assigned);
  const names = { caller: read.has('caller'), kwargs: read.has('kwargs'), varargs: read.has('varargs') };
  known.set(body, names);
  return names;
}

function note(node: Node, read: Set<string>, assigned: Set<string>): void {
  if (node.type === 'Name' && !assigned.has(node.name)) read.add(node.name);
  if ((node.type === 'Set' || node.type === 'SetBlock' || node.type === 'For') && node.target.type === 'Name') {
    if (!read.has(node.target.name)) assigned.add(node.target.name);
  }
}

/** Values of a macro's names for one call; parameters that need their default are in `unset`. */
export interface Bound {
  readonly values: readonly (readonly [name: string, value: Value])[];
  readonly unset: readonly string[];
}

/** A macro, or the `caller` of a call block, which has no name. */
export class Macro extends Callable {
  readonly name: string | null;
  readonly parameters: readonly string[];
  readonly #special: SpecialNames;

  constructor(name: string | null, parameters: readonly string[], body: readonly Statement[], run: (bound: Bound) => Value) {
    super((args) => run(this.#bind(args)), 'Macro');
    this.name = name;
    this.parameters = parameters;
    this.#special = specialNames(body, parameters);
  }

  #bind({ positional, keywords }: Arguments): Bound {
    const rest = new Map(keywords);
    const values: [string, Value][] = [];
    const unset: string[] = [];
    for (const [i, name] of this.parameters.entries()) {
      const isGiven = i < positional.length || rest.has(name);
      values.push([name, i < positional.length ? positional[i] : rest.get(name)]);
      if (i >= positional.length) rest.delete(name);
      if (!isGiven) unset.push(name);
    }
    if (this.#special.caller && !this.parameters.includes('caller')) {
      values.push(['caller', rest.get('caller') ?? undefined]);
      rest.delete('caller');
    }
    const title = this.name === null ? 'of a call block' : `'${this.name}'`;
    const [unknown] = rest.keys();
    if (this.#special.kwargs) values.push(['kwargs', Dict.from(rest)]);
    else if (unknown !== undefined) throw new TemplateError(`macro ${title} takes no keyword argument '${unknown}'`);
    if (this.#special.varargs) values.push(['varargs', Tuple.from(positional.slice(this.parameters.length)) as Tuple]);
    else if (positional.length > this.parameters.length) {
      throw new TemplateError(`macro ${title} takes not more than ${this.parameters.length} argument(s)`);
    }
    return { values, unset };
  }

  override attribute(name: string): Value {
    if (name === 'name') return this.name;
    if (name === 'arguments') return Tuple.from(this.parameters) as Tuple;
    const catches = { catch_kwargs: this.#special.kwargs, catch_varargs: this.#special.varargs, caller: this.#special.caller };
    return new Map<string, Value>(Object.entries(catches)).get(name);
  }

  override text(repr: (value: Value) => string): string {
    return `<Macro ${this.name === null ? 'anonymous' : repr(this.name)}>`;
  }
}
