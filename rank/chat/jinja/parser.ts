/** Parses statements: Jinja's own, `break` and `continue`, and the `generation` of Transformers. */
import { syntaxError } from './errors.ts';
import { ExpressionParser } from './expression-parser.ts';
import { tokenize } from './lexer.ts';
import type { CallBlock, Expression, Filter, Signature, Statement, Target } from './nodes.ts';
import { TokenStream } from './token-stream.ts';

class StatementParser {
  readonly #tokens: TokenStream;
  readonly #expressions: ExpressionParser;
  /** Tags that are open, outermost first. */
  readonly #open: string[] = [];

  constructor(tokens: TokenStream) {
    this.#tokens = tokens;
    this.#expressions = new ExpressionParser(tokens);
  }

  /** Statements up to one of the `ends`, which comes next then; without any, up to the end of the template. */
  statements(ends: readonly string[]): Statement[] {
    const body: Statement[] = [];
    for (;;) {
      const { type, value, line } = this.#tokens.next();
      if (type === 'eof') {
        if (ends.length === 0) return body;
        throw syntaxError(`unexpected end of template, expected ${ends.join(' or ')} of '${this.#open.at(-1)}'`, line);
      }
      if (type === 'data') {
        body.push({ type: 'Text', line, text: value });
      } else if (type === 'variable_begin') {
        body.push({ type: 'Print', line, value: this.#expressions.tuple() });
        this.#tokens.expect('variable_end');
      } else {
        if (ends.some((end) => this.#tokens.isName(end))) return body;
        body.push(...this.#statement(line));
        this.#tokens.expect('block_end');
      }
    }
  }

  #statement(line: number): Statement[] {
    const tag = this.#tokens.expect('name').value;
    this.#open.push(tag);
    try {
      if (tag === 'print') return this.#print(line);
      return [this.#assigning(tag, line) ?? this.#scoping(tag, line) ?? this.#other(tag, line)];
    } finally {
      this.#open.pop();
    }
  }

  #other(tag: string, line: number): Statement {
    switch (tag) {
      case 'for':
        return this.#for(line);
      case 'if':
        return this.#if(line);
      case 'macro':
        return { type: 'Macro', line, name: this.#tokens.expect('name').value, ...this.#signature(), body: this.#body('endmacro') };
      case 'call':
        return this.#callBlock(line);
      case 'block':
        return this.#block(line);
      case 'break':
        return { type: 'Break', line };
      case 'continue':
        return { type: 'Continue', line };
      case 'include':
      case 'import':
      case 'from':
      case 'extends':
        return this.#load(tag, line);
      default:
        throw syntaxError(`there is no tag '${tag}'${this.#open.length > 1 ? ` inside '${this.#open.at(-2)}'` : ''}`, line);
    }
  }

  #assigning(tag: string, line: number): Statement | null {
    if (tag !== 'set') return null;
    const target = this.#expressions.target({ withNamespace: true });
    if (this.#tokens.skipOperator('=')) return { type: 'Set', line, target, value: this.#expressions.tuple() };
    const filter = this.#tokens.isOperator('|') ? this.#expressions.filters(null) : null;
    return { type: 'SetBlock', line, target, filter, body: this.#body('endset') };
  }

  #scoping(tag: string, line: number): Statement | null {
    switch (tag) {
      case 'with':
        return { type: 'With', line, targets: this.#withTargets(), body: this.#body('endwith') };
      case 'filter':
        return { type: 'FilterBlock', line, filter: this.#expressions.filters(null, true) as Filter, body: this.#body('endfilter') };
      case 'autoescape':
        return { type: 'Autoescape', line, value: this.#expressions.expression(), body: this.#body('endautoescape') };
      case 'generation':
        return { type: 'Generation', line, body: this.#body('endgeneration') };
      default:
        return null;
    }
  }

  /** The statements of a tag, up to and with the first of its ends. */
  #body(...ends: readonly string[]): Statement[] {
    this.#tokens.skipOperator(':');
    this.#tokens.expect('block_end');
    const body = this.statements(ends);
    if (ends.length === 1) this.#tokens.next();
    return body;
  }

  #print(line: number): Statement[] {
    const values: Statement[] = [];
    while (this.#tokens.peek().type !== 'block_end') {
      if (values.length > 0) this.#tokens.expectOperator(',');
      values.push({ type: 'Print', line, value: this.#expressions.expression() });
    }
    return values;
  }

  #for(line: number): Statement {
    const target = this.#expressions.target({ end: 'in' });
    this.#tokens.expectName('in');
    const iterable = this.#expressions.tuple({ withCondition: false, end: 'recursive' });
    const test = this.#tokens.skipName('if') ? this.#expressions.expression() : null;
    const isRecursive = this.#tokens.skipName('recursive');
    const body = this.#body('endfor', 'else');
    const otherwise = this.#tokens.next().value === 'else' ? this.#body('endfor') : [];
    return { type: 'For', line, target, iterable, test, isRecursive, body, otherwise };
  }

  #if(line: number): Statement {
    const branches: [Expression, Statement[]][] = [];
    for (;;) {
      const test = this.#expressions.tuple({ withCondition: false });
      branches.push([test, this.#body('elif', 'else', 'endif')]);
      const end = this.#tokens.next().value;
      if (end === 'elif') continue;
      return { type: 'If', line, branches, otherwise: end === 'else' ? this.#body('endif') : [] };
    }
  }

  #withTargets(): [Target, Expression][] {
    const targets: [Target, Expression][] = [];
    while (this.#tokens.peek().type !== 'block_end') {
      if (targets.length > 0) this.#tokens.expectOperator(',');
      const target = this.#expressions.target();
      this.#tokens.expectOperator('=');
      targets.push([target, this.#expressions.expression()]);
    }
    return targets;
  }

  #signature(): Signature {
    const parameters: string[] = [];
    const defaults: Expression[] = [];
    this.#tokens.expectOperator('(');
    while (!this.#tokens.isOperator(')')) {
      if (parameters.length > 0) this.#tokens.expectOperator(',');
      parameters.push(this.#tokens.expect('name').value);
      if (this.#tokens.skipOperator('=')) defaults.push(this.#expressions.expression());
      else if (defaults.length > 0) throw this.#tokens.error('a parameter without default follows one with a default');
    }
    this.#tokens.next();
    return { parameters, defaults };
  }

  #callBlock(line: number): CallBlock {
    const signature = this.#tokens.isOperator('(') ? this.#signature() : { parameters: [], defaults: [] };
    const call = this.#expressions.expression();
    if (call.type !== 'Call') throw syntaxError("expected a call after 'call'", line);
    return { type: 'CallBlock', line, ...signature, call, body: this.#body('endcall') };
  }

  #block(line: number): Statement {
    const name = this.#tokens.expect('name').value;
    const isScoped = this.#tokens.skipName('scoped');
    const isRequired = this.#tokens.skipName('required');
    const body = this.#body('endblock');
    this.#tokens.skipName(name);
    return { type: 'Block', line, name, isScoped, isRequired, body };
  }

  /** Tags that ask for another template, of which there is none: they are read over, and fail when they run. */
  #load(tag: string, line: number): Statement {
    this.#expressions.expression();
    while (this.#tokens.peek().type !== 'block_end') {
      if (this.#tokens.peek().type === 'eof') throw this.#tokens.unexpected("'%}'");
      this.#tokens.next();
    }
    return { type: 'Load', line, tag };
  }
}

/** @throws TemplateError for an invalid template. */
export function parse(source: string): Statement[] {
  return new StatementParser(new TokenStream(tokenize(source))).statements([]);
}
