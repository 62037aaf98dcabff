/** Runs the statements of a template. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { ExpressionEvaluator } from './expressions.ts';
import { iterate } from './iterables.ts';
import { Loop } from './loop.ts';
import { type Bound, Macro } from './macro.ts';
import type { Block, Expression, For, Signature, Statement, Target } from './nodes.ts';
import { Scope } from './scope.ts';
import { namesIn, symbolsOf } from './symbols.ts';
import { toText } from './text.ts';
import { Callable, Instance, isTrue, Namespace, noArguments, type Value } from './values.ts';

/** Early exit from a block. */
type Jump = 'break' | 'continue' | null;

/** `self`, whose attributes are the template's blocks. */
class Blocks extends Instance {
  readonly typeName = 'TemplateReference';
  readonly #blocks: ReadonlyMap<string, Block>;
  readonly #render: (block: Block) => string;

  constructor(blocks: ReadonlyMap<string, Block>, render: (block: Block) => string) {
    super();
    [this.#blocks, this.#render] = [blocks, render];
  }

  override attribute(name: string): Value {
    const block = this.#blocks.get(name);
    return block && new Callable(() => this.#render(block), 'BlockReference');
  }

  override text(): string {
    return '<TemplateReference None>';
  }
}

/** One rendering. */
export class Evaluator {
  readonly #budget: Budget;
  readonly #expressions: ExpressionEvaluator;
  readonly #root: Scope;

  /** @param root - scope of the template's variables, in which blocks run */
  constructor(root: Scope, blocks: ReadonlyMap<string, Block>, budget: Budget) {
    this.#budget = budget;
    this.#root = root;
    this.#expressions = new ExpressionEvaluator(budget);
    root.set('self', new Blocks(blocks, ({ body }) => this.render(body, new Scope(root, symbolsOf(body)))));
  }

  /** Renders a block in `scope`. */
  render(body: readonly Statement[], scope: Scope): string {
    return this.#expressions.nested(() => {
      const parts: string[] = [];
      this.#run(body, scope, parts);
      return this.#budget.take(parts.join(''));
    });
  }

  /** Runs a block, appending its text to `out`. */
  #run(body: readonly Statement[], scope: Scope, out: string[]): Jump {
    for (const node of body) {
      const jump = this.#runOne(node, scope, out);
      if (jump !== null) return jump;
    }
    return null;
  }

  #runOne(node: Statement, scope: Scope, out: string[]): Jump {
    this.#budget.step();
    try {
      return this.#statement(node, scope, out);
    } catch (error) {
      if (error instanceof TemplateError) error.line ??= node.line;
      throw error;
    }
  }

  #statement(node: Statement, scope: Scope, out: string[]): Jump {
    switch (node.type) {
      case 'Text':
        out.push(node.text);
        return null;
      case 'Print':
        this.#write(this.#evaluate(node.value, scope), out);
        return null;
      case 'If': {
        const branch = node.branches.find(([test]) => isTrue(this.#evaluate(test, scope)));
        return this.#run(branch?.[1] ?? node.otherwise, scope, out);
      }
      case 'For':
        return this.#runFor(node, this.#evaluate(node.iterable, scope), scope, out);
      case 'Set':
        this.#checkTarget(node.target, scope);
        this.#assign(node.target, this.#evaluate(node.value, scope), scope);
        return null;
      case 'Macro':
        scope.set(node.name, this.#macro(node, node.name, scope));
        return null;
      case 'CallBlock':
        this.#write(this.#expressions.call(node.call, scope, new Map([['caller', this.#macro(node, null, scope)]])), out);
        return null;
      case 'Break':
        return 'break';
      case 'Continue':
        return 'continue';
      default:
        return this.#scoped(node, scope, out);
    }
  }

  /** Statements with a body whose assignments do not leave it. */
  #scoped(
    node: Exclude<Statement, { type: 'Text' | 'Print' | 'If' | 'For' | 'Set' | 'Macro' | 'CallBlock' | 'Break' | 'Continue' }>,
    scope: Scope,
    out: string[],
  ): Jump {
    switch (node.type) {
      case 'With': {
        const targets = node.targets.flatMap(([target]) => [...namesIn(target)]);
        const inner = new Scope(scope, symbolsOf(node.body, targets));
        for (const [target, value] of node.targets) this.#assign(target, this.#evaluate(value, scope), inner);
        return this.#run(node.body, inner, out);
      }
      case 'FilterBlock': {
        const inner = new Scope(scope, symbolsOf(node.body));
        const parts: string[] = [];
        const jump = this.#run(node.body, inner, parts);
        if (jump === null) this.#write(this.#expressions.filter(node.filter, inner, this.#budget.take(parts.join(''))), out);
        return jump;
      }
      case 'SetBlock': {
        const inner = new Scope(scope, symbolsOf(node.body));
        const parts: string[] = [];
        const jump = this.#run(node.body, inner, parts);
        if (jump !== null) return jump;
        this.#checkTarget(node.target, scope);
        const text = this.#budget.take(parts.join(''));
        this.#assign(node.target, node.filter === null ? text : this.#expressions.filter(node.filter, inner, text), scope);
        return null;
      }
      case 'Autoescape':
        if (isTrue(this.#evaluate(node.value, scope))) throw new TemplateError('autoescape of anything but false is not supported');
        return this.#run(node.body, new Scope(scope, symbolsOf(node.body)), out);
      case 'Block':
        if (node.isRequired) throw new TemplateError(`required block '${node.name}' not found`);
        return this.#run(node.body, new Scope(node.isScoped ? scope : this.#root, symbolsOf(node.body)), out);
      case 'Generation':
        this.#write(this.#macro({ parameters: [], defaults: [], body: node.body }, null, scope).call(noArguments), out);
        return null;
      case 'Load':
        throw new TemplateError(`'${node.tag}' finds no other template: a chat template stands alone`);
    }
  }

  #evaluate(node: Expression, scope: Scope): Value {
    return this.#expressions.evaluate(node, scope);
  }

  #write(value: Value, out: string[]): void {
    out.push(this.#budget.take(toText(value, this.#budget)));
  }

  /** Each iteration has its own scope: assignments do not reach the next one. The jump is one of `else`, to an outer loop. */
  #runFor(node: For, source: Value, scope: Scope, out: string[], depth0 = 0): Jump {
    const { target, test, body, otherwise, isRecursive } = node;
    const filtered = test === null ? iterate(source) : this.#select(node, test, source, scope);
    const recurse = isRecursive
      ? (items: Value, depth: number) =>
          this.#expressions.nested(() => {
            const parts: string[] = [];
            this.#runFor(node, items, scope, parts, depth);
            return this.#budget.take(parts.join(''));
          })
      : null;
    const loop = new Loop(filtered, test === null ? source : undefined, recurse, depth0, this.#budget);
    const symbols = symbolsOf(body, [...namesIn(target), 'loop']);
    let wasFinished = false;
    for (let next = loop.next(); next !== null; next = loop.next()) {
      this.#budget.step();
      const turn = new Scope(scope, symbols);
      this.#assign(target, next.item, turn);
      turn.set('loop', loop);
      const jump = this.#run(body, turn, out);
      if (jump === 'break') break;
      wasFinished ||= jump === null;
    }
    // As in Jinja, `else` also runs when every iteration ended early.
    return wasFinished ? null : this.#run(otherwise, new Scope(scope, symbolsOf(otherwise)), out);
  }

  /** The items for which the test of a loop holds; each is tested when it is its turn. */
  *#select({ target }: For, test: Expression, source: Value, scope: Scope): Generator<Value, void, undefined> {
    for (const item of iterate(source)) {
      this.#budget.step();
      const turn = new Scope(scope);
      this.#assign(target, item, turn);
      if (isTrue(this.#evaluate(test, turn))) yield item;
    }
  }

  /** @throws TemplateError for an attribute of anything but a namespace. */
  #checkTarget(target: Target, scope: Scope): void {
    if (target.type === 'Tuple') for (const item of target.items) this.#checkTarget(item as Target, scope);
    if (target.type === 'NamespaceTarget' && !(scope.get(target.name) instanceof Namespace)) {
      throw new TemplateError(`cannot assign to '${target.name}.${target.attribute}': '${target.name}' is no namespace`);
    }
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.type === 'Name') {
      scope.set(target.name, value);
    } else if (target.type === 'Tuple') {
      const items = [...iterate(value)];
      if (items.length !== target.items.length) {
        throw new TemplateError(`expected ${target.items.length} values to unpack, got ${items.length}`);
      }
      for (const [i, one] of target.items.entries()) this.#assign(one as Target, items[i], scope);
    } else {
      const object = scope.get(target.name);
      if (object instanceof Namespace) object.attributes.set(target.attribute, value);
    }
  }

  /** A macro, whose scope is that of its definition. */
  #macro({ parameters, defaults, body }: Signature & { readonly body: readonly Statement[] }, name: string | null, scope: Scope): Macro {
    const run = ({ values, unset }: Bound) => {
      const inner = new Scope(
        scope,
        symbolsOf(
          body,
          values.map(([parameter]) => parameter),
        ),
      );
      for (const [parameter, value] of values) inner.set(parameter, value);
      for (const parameter of unset) {
        const value = defaults[parameters.indexOf(parameter) - parameters.length + defaults.length];
        if (value !== undefined) inner.set(parameter, this.#evaluate(value, inner));
      }
      return this.render(body, inner);
    };
    return new Macro(name, parameters, body, run);
  }
}
