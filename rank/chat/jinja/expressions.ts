/** Evaluates expressions as Jinja in the sandbox of Transformers; JavaScript's objects are unreachable. */
import { getAttribute, getItem, getSlice } from './attributes.ts';
import type { Budget } from './budget.ts';
import { compare, contains, isEqual } from './compare.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { runFilter } from './filters.ts';
import { iterate } from './iterables.ts';
import type { ArgumentNodes, Call, Expression, Filter } from './nodes.ts';
import { runBinary, runUnary } from './operators.ts';
import type { Scope } from './scope.ts';
import { runTest } from './tests.ts';
import { toText } from './text.ts';
import { type Arguments, Callable, isTrue, Tuple, textOf, typeName, type Value } from './values.ts';

/** Max nesting of calls and expressions: deeper templates and recursive macros would exhaust the stack. */
const maxDepth = 500;

export class ExpressionEvaluator {
  readonly budget: Budget;
  #depth = 0;

  constructor(budget: Budget) {
    this.budget = budget;
  }

  /** @throws TemplateError when calls or expressions nest too deeply. */
  nested<T>(run: () => T): T {
    if (++this.#depth > maxDepth) throw new TemplateError(`more than ${maxDepth} nested calls and expressions`);
    try {
      return run();
    } finally {
      this.#depth--;
    }
  }

  evaluate(node: Expression, scope: Scope): Value {
    this.budget.step();
    return this.nested(() => this.#expression(node, scope));
  }

  /** A filter, of `value` where its operand is the text of a block. */
  filter(node: Filter, scope: Scope, value?: Value): Value {
    const operand =
      node.operand === null
        ? value
        : node.operand.type === 'Filter'
          ? this.filter(node.operand, scope, value)
          : this.evaluate(node.operand, scope);
    return runFilter(node.name, operand, this.#arguments(node.args, scope), this.budget);
  }

  /** A call, with more named arguments. */
  call(node: Call, scope: Scope, more: ReadonlyMap<string, Value> = new Map()): Value {
    const callee = this.evaluate(node.callee, scope);
    const { positional, keywords } = this.#arguments(node.args, scope);
    if (callee instanceof Callable) return callee.call({ positional, keywords: new Map([...keywords, ...more]) });
    const name = describe(node.callee);
    throw new TemplateError(
      callee === undefined ? `${name} is undefined, or hidden by the sandbox` : `${name}, of type ${typeName(callee)}, is not callable`,
    );
  }

  #expression(node: Expression, scope: Scope): Value {
    switch (node.type) {
      case 'Constant':
        return node.value;
      case 'Name':
        return scope.get(node.name);
      case 'List':
        return node.items.map((item) => this.evaluate(item, scope));
      case 'Tuple':
        return Tuple.from(node.items, (item) => this.evaluate(item, scope)) as Tuple;
      case 'Dict':
        return Dict.from(node.entries.map(([key, value]) => [this.evaluate(key, scope), this.evaluate(value, scope)] as const));
      case 'Attribute': {
        const object = this.evaluate(node.object, scope);
        this.#needDefined(object, node.object, `.${node.name}`);
        return getAttribute(object, node.name, this.budget);
      }
      case 'Item':
        return this.#item(node.object, node.key, scope);
      case 'Call':
        return this.call(node, scope);
      case 'Filter':
        return this.filter(node, scope);
      case 'Test':
        return runTest(node.name, this.evaluate(node.operand, scope), this.#arguments(node.args, scope), this.budget);
      case 'Condition':
        if (isTrue(this.evaluate(node.test, scope))) return this.evaluate(node.then, scope);
        return node.otherwise === null ? undefined : this.evaluate(node.otherwise, scope);
      default:
        return this.#operation(node, scope);
    }
  }

  #operation(node: Expression, scope: Scope): Value {
    switch (node.type) {
      case 'And':
      case 'Or': {
        const left = this.evaluate(node.left, scope);
        return isTrue(left) === (node.type === 'And') ? this.evaluate(node.right, scope) : left;
      }
      case 'Not':
        return !isTrue(this.evaluate(node.operand, scope));
      case 'Unary':
        return runUnary(node.operator, this.evaluate(node.operand, scope));
      case 'Binary': {
        const left = this.evaluate(node.left, scope);
        const right = this.evaluate(node.right, scope);
        const isFormat = node.operator === '%' && textOf(left) !== undefined;
        this.#needDefined(left, node.left, ` ${node.operator} …`);
        if (!isFormat) this.#needDefined(right, node.right, `, as operand of ${node.operator}`);
        return runBinary(node.operator, left, right, this.budget);
      }
      case 'Concat':
        return this.budget.take(node.items.map((item) => toText(this.evaluate(item, scope), this.budget)).join(''));
      case 'Compare':
        return this.#compare(node.left, node.rest, scope);
      default:
        throw new TemplateError(`${node.type} is not supported here`);
    }
  }

  #needDefined(value: Value, node: Expression, use: string): void {
    if (value === undefined)
      throw new TemplateError(`${describe(node)} is undefined${use.startsWith(',') ? use : `, in ${describe(node)}${use}`}`);
  }

  /** `a < b < c`: each pair is compared, up to the first that does not hold. */
  #compare(leftNode: Expression, rest: readonly (readonly [string, Expression])[], scope: Scope): boolean {
    let left = this.evaluate(leftNode, scope);
    for (const [operator, node] of rest) {
      const right = this.evaluate(node, scope);
      if (!this.#holds(operator, left, right)) return false;
      left = right;
    }
    return true;
  }

  #holds(operator: string, left: Value, right: Value): boolean {
    switch (operator) {
      case '==':
        return isEqual(left, right);
      case '!=':
        return !isEqual(left, right);
      case 'in':
        return contains(right, left, this.budget);
      case 'not in':
        return !contains(right, left, this.budget);
      case '<':
        return compare(left, right, operator) < 0;
      case '<=':
        return compare(left, right, operator) <= 0;
      case '>':
        return compare(left, right, operator) > 0;
      default:
        return compare(left, right, operator) >= 0;
    }
  }

  #item(objectNode: Expression, key: Expression, scope: Scope): Value {
    const object = this.evaluate(objectNode, scope);
    this.#needDefined(object, objectNode, '[…]');
    if (key.type !== 'Slice') return getItem(object, this.evaluate(key, scope), this.budget);
    const bounds = key.bounds.map((bound) => (bound === null ? null : this.evaluate(bound, scope)));
    return getSlice(object, [bounds[0], bounds[1], bounds[2] ?? 1], this.budget);
  }

  #arguments({ positional: nodes, keywords: named, star, doubleStar }: ArgumentNodes, scope: Scope): Arguments {
    const positional = nodes.map((node) => this.evaluate(node, scope));
    const keywords = new Map<string, Value>();
    const add = (name: string, value: Value) => {
      if (keywords.has(name)) throw new TemplateError(`the keyword argument '${name}' is repeated`);
      keywords.set(name, value);
    };
    for (const [name, node] of named) add(name, this.evaluate(node, scope));
    if (star !== null) for (const item of iterate(this.evaluate(star, scope))) positional.push(item);
    if (doubleStar !== null) {
      const more = this.evaluate(doubleStar, scope);
      if (!(more instanceof Dict)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(more)}`);
      for (const [key, value] of more.entries()) {
        const name = textOf(key);
        if (name === undefined) throw new TemplateError('keywords must be strings');
        add(name, value);
      }
    }
    return { positional, keywords };
  }
}

/** How a template writes an expression, shortened. */
function describe(node: Expression): string {
  if (node.type === 'Name') return `'${node.name}'`;
  if (node.type === 'Attribute') return `${describe(node.object).slice(0, -1)}.${node.name}'`;
  if (node.type === 'Item') return `${describe(node.object).slice(0, -1)}[${node.key.type === 'Constant' ? String(node.key.value) : '…'}]'`;
  if (node.type === 'Call') return `${describe(node.callee).slice(0, -1)}(…)'`;
  return `a ${node.type.toLowerCase()}'`.replace(/^/, "'");
}
