/** Tokens as the parsers read them. */
import { syntaxError, type TemplateError } from './errors.ts';
import type { Token } from './lexer.ts';

const names: Readonly<Record<string, string>> = {
  ...{ eof: 'end of template', data: 'template text', block_begin: '{%', block_end: '%}', variable_begin: '{{', variable_end: '}}' },
  ...{ int: 'an integer', float: 'a float', string: 'a string', name: 'a name' },
};

export class TokenStream {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  /** The token `ahead` of the current one; past the end, the end. */
  peek(ahead = 0): Token {
    return (this.#tokens[this.#at + ahead] ?? this.#tokens.at(-1)) as Token;
  }

  next(): Token {
    const token = this.peek();
    this.#at++;
    return token;
  }

  isOperator(value: string, ahead = 0): boolean {
    const token = this.peek(ahead);
    return token.type === 'operator' && token.value === value;
  }

  isName(value: string, ahead = 0): boolean {
    const token = this.peek(ahead);
    return token.type === 'name' && token.value === value;
  }

  skipOperator(value: string): boolean {
    return this.isOperator(value) && this.next() !== null;
  }

  skipName(value: string): boolean {
    return this.isName(value) && this.next() !== null;
  }

  /** @throws TemplateError unless a token of this type comes. */
  expect(type: Token['type']): Token {
    if (this.peek().type !== type) throw this.unexpected(names[type] ?? type);
    return this.next();
  }

  expectOperator(value: string): void {
    if (!this.skipOperator(value)) throw this.unexpected(`'${value}'`);
  }

  expectName(value: string): void {
    if (!this.skipName(value)) throw this.unexpected(`'${value}'`);
  }

  unexpected(expected: string): TemplateError {
    const { type, value } = this.peek();
    const found = type === 'name' || type === 'operator' ? `'${value}'` : (names[type] ?? type);
    return this.error(`expected ${expected}, got ${found}`);
  }

  error(message: string): TemplateError {
    return syntaxError(message, this.peek().line);
  }
}
