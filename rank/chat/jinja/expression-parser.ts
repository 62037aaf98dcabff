/** Parses expressions, with the precedence that Jinja gives its operators. */
import type { Expression, Target, TupleNode } from './nodes.ts';
import { OperandParser } from './operand-parser.ts';

const comparisons = ['==', '!=', '<', '<=', '>', '>='];

export class ExpressionParser extends OperandParser {
  /** An expression, or several with commas between them: a tuple. `end` is a name that ends it. */
  override tuple({ withCondition = true, end = '', isInParentheses = false } = {}): Expression {
    const read = () => (withCondition ? this.expression() : this.#or());
    return this.#commaList(read, end, isInParentheses);
  }

  /** What an assignment assigns to. */
  target({ end = '', withNamespace = false } = {}): Target {
    const target = this.#commaList(() => this.primary(withNamespace), end, false);
    if (isTarget(target)) return target;
    throw this.tokens.error(`cannot assign to ${target.type.toLowerCase()}`);
  }

  override expression(): Expression {
    let then = this.#or();
    while (this.tokens.skipName('if')) {
      const test = this.#or();
      const otherwise = this.tokens.skipName('else') ? this.expression() : null;
      then = { type: 'Condition', test, then, otherwise };
    }
    return then;
  }

  #commaList(read: () => Expression, end: string, isInParentheses: boolean): Expression {
    const items: Expression[] = [];
    let isTuple = false;
    while (!this.#isTupleEnd(end)) {
      items.push(read());
      if (!this.tokens.skipOperator(',')) break;
      isTuple = true;
    }
    if (isTuple || (items.length === 0 && isInParentheses)) return { type: 'Tuple', items };
    if (items[0] === undefined) throw this.tokens.unexpected('an expression');
    return items[0];
  }

  #isTupleEnd(end: string): boolean {
    const { type } = this.tokens.peek();
    return type === 'variable_end' || type === 'block_end' || this.tokens.isOperator(')') || (end !== '' && this.tokens.isName(end));
  }

  #or(): Expression {
    let left = this.#and();
    while (this.tokens.skipName('or')) left = { type: 'Or', left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.tokens.skipName('and')) left = { type: 'And', left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    return this.tokens.skipName('not') ? { type: 'Not', operand: this.#not() } : this.#comparison();
  }

  #comparison(): Expression {
    const left = this.#sum();
    const rest: [string, Expression][] = [];
    for (;;) {
      const { type, value } = this.tokens.peek();
      if (type === 'operator' && comparisons.includes(value)) {
        this.tokens.next();
        rest.push([value, this.#sum()]);
      } else if (this.tokens.skipName('in')) {
        rest.push(['in', this.#sum()]);
      } else if (this.tokens.isName('not') && this.tokens.isName('in', 1)) {
        this.tokens.next();
        this.tokens.next();
        rest.push(['not in', this.#sum()]);
      } else {
        return rest.length === 0 ? left : { type: 'Compare', left, rest };
      }
    }
  }

  #binary(operators: readonly string[], read: () => Expression): Expression {
    let left = read();
    for (;;) {
      const { type, value } = this.tokens.peek();
      if (type !== 'operator' || !operators.includes(value)) return left;
      this.tokens.next();
      left = { type: 'Binary', operator: value, left, right: read() };
    }
  }

  #sum(): Expression {
    return this.#binary(['+', '-'], () => this.#concat());
  }

  #concat(): Expression {
    const items = [this.#product()];
    while (this.tokens.skipOperator('~')) items.push(this.#product());
    return items.length === 1 ? (items[0] as Expression) : { type: 'Concat', items };
  }

  #product(): Expression {
    return this.#binary(['*', '/', '//', '%'], () => this.#binary(['**'], () => this.unary()));
  }
}

function isTarget(node: Expression): node is Target {
  if (node.type === 'Tuple') return (node as TupleNode).items.every(isTarget);
  return node.type === 'Name' || node.type === 'NamespaceTarget';
}
