/** Evaluates a parsed template as Jinja in the sandbox of Transformers; JavaScript's objects are unreachable. */
import { getAttribute, getItem, getSlice } from './attributes.ts';
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { runFilter } from './filters.ts';
import {
  type CallExpression,
  type CallStatement,
  type FilterNode,
  type ForStatement,
  type Node,
  type Parameter,
  type SetStatement,
  walk,
} from './nodes.ts';
import { runBinary, runUnary } from './operators.ts';
import { contains, runTest } from './tests.ts';
import { type Arguments, Callable, isTrue, iterate, type Loop, Namespace, Tuple, toText, typeName, type Value } from './values.ts';

/** Names of a block; they shadow those of enclosing blocks. */
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

/** Early exit from a block. */
type Jump = 'break' | 'continue' | null;

/** Max nesting of calls and expressions: deeper templates and recursive macros would exhaust the stack. */
const maxDepth = 500;

/** One rendering. */
export class Evaluator {
  readonly #budget: Budget;
  #depth = 0;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  /** Renders a block in `scope`. */
  render(body: readonly Node[], scope: Scope): string {
    const parts: string[] = [];
    this.#run(body, scope, parts);
    return this.#budget.take(parts.join(''));
  }

  /** Runs a block, appending its text to `out`. */
  #run(body: readonly Node[], scope: Scope, out: string[]): Jump {
    for (const node of body) {
      const jump = this.#runOne(node, scope, out);
      if (jump !== null) return jump;
    }
    return null;
  }

  #runOne(node: Node, scope: Scope, out: string[]): Jump {
    this.#budget.step();
    switch (node.type) {
      case 'If':
        return this.#run(isTrue(this.#evaluate(node.test, scope)) ? node.body : node.alternate, scope, out);
      case 'For':
        this.#runFor(node, scope, out);
        return null;
      case 'Set':
        this.#runSet(node, scope);
        return null;
      case 'Macro':
        scope.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope));
        return null;
      case 'CallStatement':
        this.#write(this.#runCallBlock(node, scope), out);
        return null;
      case 'FilterStatement':
        this.#write(this.#filter(this.render(node.body, new Scope(scope)), node.filter, scope), out);
        return null;
      case 'Break':
        return 'break';
      case 'Continue':
        return 'continue';
      case 'Comment':
        return null;
      default:
        this.#write(this.#evaluate(node, scope), out);
        return null;
    }
  }

  #write(value: Value, out: string[]): void {
    out.push(this.#budget.take(toText(value, this.#budget)));
  }

  /** Each iteration has its own scope: assignments do not reach the next one. */
  #runFor({ loopvar, iterable, body, defaultBlock }: ForStatement, scope: Scope, out: string[]): void {
    const source = iterable.type === 'SelectExpression' ? iterable.lhs : iterable;
    const test = iterable.type === 'SelectExpression' ? iterable.test : null;
    const scopeOf = (item: Value) => {
      this.#budget.step();
      const turn = new Scope(scope);
      this.#assign(loopvar, item, turn);
      return turn;
    };
    const all = iterate(this.#evaluate(source, scope));
    const items = test === null ? all : all.filter((item) => isTrue(this.#evaluate(test, scopeOf(item))));
    const loop: Loop = { kind: 'loop', items, index0: 0 };
    let wasFinished = false;
    for (const item of items) {
      const turn = scopeOf(item);
      turn.set('loop', loop);
      const jump = this.#run(body, turn, out);
      if (jump === 'break') break;
      wasFinished ||= jump === null;
      loop.index0++;
    }
    // As in Jinja, `else` also runs when every iteration ended early.
    if (!wasFinished) this.#run(defaultBlock, new Scope(scope), out);
  }

  #runSet({ assignee, value, body }: SetStatement, scope: Scope): void {
    this.#assign(assignee, value === null ? this.render(body, new Scope(scope)) : this.#evaluate(value, scope), scope);
  }

  #assign(target: Node, value: Value, scope: Scope): void {
    if (target.type === 'Identifier') {
      scope.set(target.value, value);
    } else if (target.type === 'TupleLiteral') {
      const items = iterate(value);
      if (items.length !== target.value.length) {
        throw new TemplateError(`expected ${target.value.length} values to unpack, not ${items.length}`);
      }
      for (const [i, one] of target.value.entries()) this.#assign(one, items[i], scope);
    } else if (target.type === 'MemberExpression' && target.property.type === 'Identifier') {
      const object = this.#evaluate(target.object, scope);
      if (!(object instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object', 'template');
      object.attributes.set(target.property.value, value);
    } else {
      throw new TemplateError(`cannot assign to ${target.type}`, 'template');
    }
  }

  /** A macro, whose scope is that of its definition. */
  #macro(name: string, parameters: readonly Parameter[], body: readonly Node[], scope: Scope): Callable {
    const names = parameters.map((parameter) => (parameter.type === 'Identifier' ? parameter.value : parameter.key.value));
    const used = new Set(body.flatMap((node) => [...walk(node)]).map((node) => (node.type === 'Identifier' ? node.value : '')));
    return new Callable(({ positional, keywords }) => {
      const inner = new Scope(scope);
      const [varargs, kwargs] = [positional.slice(names.length), [...keywords].filter(([key]) => !names.includes(key) && key !== 'caller')];
      if (varargs.length > 0 && !used.has('varargs'))
        throw new TemplateError(`macro ${name} takes not more than ${names.length} arguments`);
      if (kwargs[0] !== undefined && !used.has('kwargs'))
        throw new TemplateError(`macro ${name} takes no keyword argument '${kwargs[0][0]}'`);
      inner.set('caller', keywords.get('caller'));
      inner.set('varargs', Tuple.from(varargs) as Tuple);
      inner.set('kwargs', new Map(kwargs));
      for (const [i, parameter] of parameters.entries()) {
        const given = i < positional.length ? positional[i] : keywords.get(names[i] ?? '');
        const isAbsent = given === undefined && parameter.type !== 'Identifier';
        inner.set(names[i] ?? name, isAbsent ? this.#evaluate(parameter.value, inner) : given);
      }
      return this.#nested(() => this.render(body, inner));
    });
  }

  #runCallBlock({ call, callerArgs, body }: CallStatement, scope: Scope): Value {
    const caller = this.#macro('caller', callerArgs ?? [], body, scope);
    const { positional, keywords } = this.#arguments(call.args, scope);
    return this.#call(this.#evaluate(call.callee, scope), { positional, keywords: new Map([...keywords, ['caller', caller]]) });
  }

  /** @throws TemplateError when calls or expressions nest too deeply. */
  #nested<T>(run: () => T): T {
    if (++this.#depth > maxDepth) throw new TemplateError(`more than ${maxDepth} nested calls and expressions`, 'template');
    try {
      return run();
    } finally {
      this.#depth--;
    }
  }

  #evaluate(node: Node, scope: Scope): Value {
    this.#budget.step();
    return this.#nested(() => this.#expression(node, scope));
  }

  #expression(node: Node, scope: Scope): Value {
    switch (node.type) {
      case 'StringLiteral':
      case 'IntegerLiteral':
        return node.value;
      case 'FloatLiteral':
        return runUnary('float', node.value);
      case 'Identifier':
        return scope.get(node.value);
      case 'ArrayLiteral':
        return node.value.map((item) => this.#evaluate(item, scope));
      case 'TupleLiteral':
        return Tuple.from(node.value, (item) => this.#evaluate(item, scope)) as Tuple;
      case 'ObjectLiteral':
        return new Map([...node.value].map(([key, value]) => [this.#evaluate(key, scope), this.#evaluate(value, scope)]));
      case 'MemberExpression':
        return this.#member(node, scope);
      case 'CallExpression':
        return this.#call(this.#evaluate(node.callee, scope), this.#arguments(node.args, scope), node);
      case 'FilterExpression':
        return this.#filter(this.#evaluate(node.operand, scope), node.filter, scope);
      case 'TestExpression': {
        const holds = runTest(node.test.value, this.#evaluate(node.operand, scope), undefined, this.#budget);
        return holds !== node.negate;
      }
      case 'UnaryExpression':
        return runUnary(node.operator.value, this.#evaluate(node.argument, scope));
      case 'BinaryExpression':
        return this.#binary(node.operator.value, node.left, node.right, scope);
      case 'Ternary':
        return this.#evaluate(isTrue(this.#evaluate(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case 'SelectExpression':
        return isTrue(this.#evaluate(node.test, scope)) ? this.#evaluate(node.lhs, scope) : undefined;
      default:
        throw new TemplateError(`unexpected ${node.type}`, 'template');
    }
  }

  #binary(operator: string, leftNode: Node, rightNode: Node, scope: Scope): Value {
    const left = this.#evaluate(leftNode, scope);
    if (operator === 'and') return isTrue(left) ? this.#evaluate(rightNode, scope) : left;
    if (operator === 'or') return isTrue(left) ? left : this.#evaluate(rightNode, scope);
    const right = this.#evaluate(rightNode, scope);
    if (operator === 'in') return contains(right, left, this.#budget);
    if (operator === 'not in') return !contains(right, left, this.#budget);
    return runBinary(operator, left, right, this.#budget);
  }

  #member({ object, property, computed }: Extract<Node, { type: 'MemberExpression' }>, scope: Scope): Value {
    const value = this.#evaluate(object, scope);
    if (property.type === 'SliceExpression') {
      const bounds = [property.start, property.stop, property.step].map((bound) => bound && this.#evaluate(bound, scope));
      return getSlice(value, bounds, this.#budget);
    }
    if (!computed && property.type === 'Identifier') return getAttribute(value, property.value, this.#budget);
    return getItem(value, this.#evaluate(property, scope), this.#budget);
  }

  #filter(value: Value, node: FilterNode, scope: Scope): Value {
    if (node.type === 'Identifier') return runFilter(node.value, value, { positional: [], keywords: new Map() }, this.#budget);
    if (node.callee.type !== 'Identifier') throw new TemplateError('a filter must be a name', 'template');
    return runFilter(node.callee.value, value, this.#arguments(node.args, scope), this.#budget);
  }

  #call(callee: Value, args: Arguments, node?: CallExpression): Value {
    if (callee instanceof Callable) return callee.call(args);
    const name = node?.callee.type === 'Identifier' ? `'${node.callee.value}'` : `a value of type ${typeName(callee)}`;
    throw new TemplateError(`${name} cannot be called`);
  }

  #arguments(nodes: readonly Node[], scope: Scope): Arguments {
    const positional: Value[] = [];
    const keywords = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === 'KeywordArgumentExpression') keywords.set(node.key.value, this.#evaluate(node.value, scope));
      else if (node.type === 'SpreadExpression') positional.push(...iterate(this.#evaluate(node.argument, scope)));
      else if (node.type === 'KeywordSpreadExpression') this.#spread(this.#evaluate(node.argument, scope), keywords);
      else positional.push(this.#evaluate(node, scope));
    }
    return { positional, keywords };
  }

  #spread(value: Value, keywords: Map<string, Value>): void {
    if (!(value instanceof Map)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(value)}`);
    for (const [key, item] of value) keywords.set(toText(key, this.#budget), item);
  }
}
