/** Parses operands: literals and names, with what follows them. */
import type { ArgumentNodes, Call, Expression, Filter } from './nodes.ts';
import { integer } from './operators.ts';
import type { TokenStream } from './token-stream.ts';
import { Float } from './values.ts';

const noArguments: ArgumentNodes = { positional: [], keywords: [], star: null, doubleStar: null };
const constants = new Map<string, boolean | null>([
  ...(['true', 'True'] as const).map((name) => [name, true] as const),
  ...(['false', 'False'] as const).map((name) => [name, false] as const),
  ...(['none', 'None'] as const).map((name) => [name, null] as const),
]);

export abstract class OperandParser {
  readonly tokens: TokenStream;

  constructor(tokens: TokenStream) {
    this.tokens = tokens;
  }

  /** An expression, or several with commas between them: a tuple. */
  abstract tuple(options?: { isInParentheses?: boolean }): Expression;

  abstract expression(): Expression;

  protected unary(withFilter = true): Expression {
    const operator = ['-', '+'].find((sign) => this.tokens.skipOperator(sign));
    const node: Expression = operator === undefined ? this.primary(false) : { type: 'Unary', operator, operand: this.unary(false) };
    const whole = this.#postfix(node);
    return withFilter ? this.#filtersAndTests(whole) : whole;
  }

  protected primary(withNamespace: boolean): Expression {
    const { type, value } = this.tokens.peek();
    if (type === 'name') return this.#name(withNamespace);
    if (type === 'string') return this.#strings();
    if (type === 'int' || type === 'float') {
      this.tokens.next();
      return { type: 'Constant', value: type === 'int' ? integer(Number(value)) : new Float(Number(value)) };
    }
    if (this.tokens.skipOperator('(')) {
      const node = this.tuple({ isInParentheses: true });
      this.tokens.expectOperator(')');
      return node;
    }
    if (this.tokens.skipOperator('[')) return { type: 'List', items: this.#until(']', () => this.expression()) };
    if (this.tokens.skipOperator('{')) return { type: 'Dict', entries: this.#until('}', () => this.#entry()) };
    throw this.tokens.unexpected('an expression');
  }

  /** The filters that follow, applied in turn; null where there is none. `isFirst` when no `|` comes before the first. */
  filters(operand: Expression | null, isFirst = false): Filter | null {
    let filter: Filter | null = null;
    let needsBar = !isFirst;
    while (needsBar ? this.tokens.skipOperator('|') : true) {
      const name = this.#dottedName();
      const args = this.tokens.isOperator('(') ? this.#arguments() : noArguments;
      filter = { type: 'Filter', operand: filter ?? operand, name, args };
      needsBar = true;
    }
    return filter;
  }

  #name(withNamespace: boolean): Expression {
    const name = this.tokens.next().value;
    const constant = constants.get(name);
    if (constant !== undefined) return { type: 'Constant', value: constant };
    if (!withNamespace || !this.tokens.skipOperator('.')) return { type: 'Name', name };
    return { type: 'NamespaceTarget', name, attribute: this.tokens.expect('name').value };
  }

  #strings(): Expression {
    let text = '';
    while (this.tokens.peek().type === 'string') text += this.tokens.next().value;
    return { type: 'Constant', value: text };
  }

  #entry(): [Expression, Expression] {
    const key = this.expression();
    this.tokens.expectOperator(':');
    return [key, this.expression()];
  }

  /** What is read up to a closing bracket, with commas between. */
  #until<T>(close: string, read: () => T): T[] {
    const items: T[] = [];
    while (!this.tokens.isOperator(close)) {
      if (items.length > 0) this.tokens.expectOperator(',');
      if (this.tokens.isOperator(close)) break;
      items.push(read());
    }
    this.tokens.next();
    return items;
  }

  #postfix(start: Expression): Expression {
    let node = start;
    for (;;) {
      if (this.tokens.isOperator('.') || this.tokens.isOperator('[')) node = this.#subscript(node);
      else if (this.tokens.isOperator('(')) node = this.#call(node);
      else return node;
    }
  }

  #filtersAndTests(start: Expression): Expression {
    let node = start;
    for (;;) {
      if (this.tokens.isOperator('|')) node = this.filters(node) as Filter;
      else if (this.tokens.isName('is')) node = this.#test(node);
      else if (this.tokens.isOperator('(')) node = this.#call(node);
      else return node;
    }
  }

  #subscript(object: Expression): Expression {
    if (this.tokens.next().value === '.') {
      const { type, value } = this.tokens.next();
      if (type === 'name') return { type: 'Attribute', object, name: value };
      if (type === 'int') return { type: 'Item', object, key: { type: 'Constant', value: integer(Number(value)) } };
      throw this.tokens.error('expected a name or number after a dot');
    }
    const keys: Expression[] = [];
    while (!this.tokens.isOperator(']')) {
      if (keys.length > 0) this.tokens.expectOperator(',');
      keys.push(this.#subscribed());
    }
    this.tokens.next();
    return { type: 'Item', object, key: keys.length === 1 ? (keys[0] as Expression) : { type: 'Tuple', items: keys } };
  }

  #subscribed(): Expression {
    const start = this.tokens.isOperator(':') ? null : this.expression();
    if (!this.tokens.skipOperator(':')) return start as Expression;
    const bound = () => ([']', ',', ':'].some((end) => this.tokens.isOperator(end)) ? null : this.expression());
    const stop = bound();
    return { type: 'Slice', bounds: [start, stop, this.tokens.skipOperator(':') ? bound() : null] };
  }

  #call(callee: Expression): Call {
    return { type: 'Call', callee, args: this.#arguments() };
  }

  #arguments(): ArgumentNodes {
    this.tokens.expectOperator('(');
    const positional: Expression[] = [];
    const keywords: [string, Expression][] = [];
    let [star, doubleStar]: (Expression | null)[] = [null, null];
    const ensure = (holds: boolean) => {
      if (!holds) throw this.tokens.error('invalid syntax of a call');
    };
    this.#until(')', () => {
      if (this.tokens.skipOperator('*')) {
        ensure(star === null && doubleStar === null);
        star = this.expression();
      } else if (this.tokens.skipOperator('**')) {
        ensure(doubleStar === null);
        doubleStar = this.expression();
      } else if (this.tokens.peek().type === 'name' && this.tokens.isOperator('=', 1)) {
        ensure(doubleStar === null);
        const name = this.tokens.next().value;
        this.tokens.next();
        keywords.push([name, this.expression()]);
      } else {
        ensure(star === null && doubleStar === null && keywords.length === 0);
        positional.push(this.expression());
      }
    });
    return { positional, keywords, star: star ?? null, doubleStar: doubleStar ?? null };
  }

  #test(operand: Expression): Expression {
    this.tokens.next();
    const isNegated = this.tokens.skipName('not');
    const name = this.#dottedName();
    const test: Expression = { type: 'Test', operand, name, args: this.#testArguments() };
    return isNegated ? { type: 'Not', operand: test } : test;
  }

  /** A test takes arguments in parentheses, or one that follows its name. */
  #testArguments(): ArgumentNodes {
    if (this.tokens.isOperator('(')) return this.#arguments();
    const { type, value } = this.tokens.peek();
    const startsValue = type === 'operator' ? value === '[' || value === '{' : ['name', 'string', 'int', 'float'].includes(type);
    if (!startsValue || (type === 'name' && ['else', 'or', 'and'].includes(value))) return noArguments;
    if (this.tokens.isName('is')) throw this.tokens.error('tests cannot be chained with is');
    return { ...noArguments, positional: [this.#postfix(this.primary(false))] };
  }

  #dottedName(): string {
    let name = this.tokens.expect('name').value;
    while (this.tokens.skipOperator('.')) name += `.${this.tokens.expect('name').value}`;
    return name;
  }
}
