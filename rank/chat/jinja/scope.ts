/** Names of a block; they shadow those of enclosing blocks. */
import type { Symbols } from './symbols.ts';
import type { Value } from './values.ts';

export class Scope {
  readonly #names = new Map<string, Value>();
  readonly #parent: Scope | null;
  readonly #symbols: Symbols | null;

  /** @param symbols - names of the block, if it is one of a template */
  constructor(parent: Scope | null = null, symbols: Symbols | null = null) {
    this.#parent = parent;
    this.#symbols = symbols;
    for (const name of symbols?.unset ?? []) if (parent === null || !parent.#uses(name)) this.#names.set(name, undefined);
  }

  #uses(name: string): boolean {
    for (let scope: Scope | null = this; scope !== null; scope = scope.#parent) if (scope.#symbols?.used.has(name)) return true;
    return false;
  }

  get(name: string): Value {
    for (let scope: Scope | null = this; scope !== null; scope = scope.#parent) {
      if (scope.#names.has(name)) return scope.#names.get(name);
    }
    return undefined;
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}
