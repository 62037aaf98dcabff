/**
 * Which names a scope assigns to before it reads them. Jinja binds names when it compiles: such a name is Undefined from
 * the start of its scope, in inner scopes too, and is not looked up among the template's variables.
 */
import { type Node, type Statement, walk } from './nodes.ts';

export interface Symbols {
  /** Names that the scope reads or assigns to. */
  readonly used: ReadonlySet<string>;
  /** Names that it assigns to before it reads them. */
  readonly unset: ReadonlySet<string>;
}

class Frame implements Symbols {
  readonly used: Set<string>;
  readonly unset: Set<string>;
  readonly #stored: Set<string>;

  constructor(used: Iterable<string>, unset: Iterable<string> = [], stored: Iterable<string> = []) {
    [this.used, this.unset, this.#stored] = [new Set(used), new Set(unset), new Set(stored)];
  }

  load(node: Node): void {
    for (const one of walk(node)) if (one.type === 'Name' || one.type === 'NamespaceTarget') this.used.add(one.name);
  }

  store(target: Node): void {
    for (const one of walk(target)) {
      if (one.type === 'NamespaceTarget') this.used.add(one.name);
      if (one.type === 'Name') this.#storeName(one.name);
    }
  }

  #storeName(name: string): void {
    this.#stored.add(name);
    if (!this.used.has(name)) this.unset.add(name);
    this.used.add(name);
  }

  visit(body: readonly Statement[]): void {
    for (const node of body) this.#visitOne(node);
  }

  #visitOne(node: Statement): void {
    if (node.type === 'Print' || node.type === 'Set') this.load(node.value);
    if (node.type === 'Set' || node.type === 'SetBlock') this.store(node.target);
    if (node.type === 'For') this.load(node.iterable);
    if (node.type === 'Macro') this.#storeName(node.name);
    if (node.type === 'CallBlock') this.load(node.call);
    if (node.type === 'FilterBlock') this.load(node.filter);
    if (node.type === 'With') for (const [, value] of node.targets) this.load(value);
    if (node.type === 'If') this.#visitIf(node.branches, node.otherwise);
  }

  /** What a branch alone assigns to is looked up as if it were read first. */
  #visitIf([first, ...others]: Extract<Statement, { type: 'If' }>['branches'], otherwise: readonly Statement[]): void {
    if (first === undefined) return;
    const [test, body] = first;
    this.load(test);
    const branches = [this.#copy(), this.#copy(), this.#copy()] as const;
    branches[0].visit(body);
    for (const other of others) branches[1].#visitIf([other], []);
    branches[2].visit(otherwise);
    const before = new Set(this.#stored);
    for (const branch of branches) {
      for (const name of branch.used) this.used.add(name);
      for (const name of branch.#stored) this.#stored.add(name);
    }
    for (const name of this.#stored) if (!before.has(name)) this.unset.delete(name);
  }

  #copy(): Frame {
    return new Frame(this.used, this.unset, this.#stored);
  }
}

const known = new WeakMap<readonly Statement[], Symbols>();

/** The names of a scope whose body this is; its `parameters` are set when it starts. */
export function symbolsOf(body: readonly Statement[], parameters: Iterable<string> = []): Symbols {
  const cached = known.get(body);
  if (cached !== undefined) return cached;
  const frame = new Frame(parameters);
  frame.visit(body);
  known.set(body, frame);
  return frame;
}

/** Names in the target of an assignment. */
export function* namesIn(target: Node): Generator<string, void, undefined> {
  for (const node of walk(target)) if (node.type === 'Name') yield node.name;
}
