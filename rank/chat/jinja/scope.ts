/** Names of a block; they shadow those of enclosing blocks. */
import type { Value } from './values.ts';

export class Scope {
  readonly #names = new Map<string, Value>();
  readonly #parent: Scope | null;

  constructor(parent: Scope | null = null) {
    this.#parent = parent;
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
