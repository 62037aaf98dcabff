/** Cuts a template into tokens as Jinja does with `trim_blocks` and `lstrip_blocks`. */
import { syntaxError, type TemplateError } from './errors.ts';
import { readString } from './string-literals.ts';
import { space } from './white-space.ts';

export type TokenType =
  | 'data'
  | 'block_begin'
  | 'block_end'
  | 'variable_begin'
  | 'variable_end'
  | 'name'
  | 'string'
  | 'int'
  | 'float'
  | 'operator'
  | 'eof';

export interface Token {
  readonly type: TokenType;
  /** A number's digits; a string's characters. */
  readonly value: string;
  /** From 1. */
  readonly line: number;
}

const whiteSpace = `(?:${space})*`;
const endOfRaw = new RegExp(`\\{%([-+]?)${whiteSpace}endraw${whiteSpace}(?:\\+%\\}|-%\\}${whiteSpace}|%\\}\\n?)`, 'g');
const patterns = {
  space: new RegExp(`(?:${space})+`, 'y'),
  startOfRaw: new RegExp(`\\{%([-+]?)${whiteSpace}raw${whiteSpace}(?:-%\\}${whiteSpace}|%\\})`, 'y'),
  endOfBlock: new RegExp(`\\+%\\}|-%\\}${whiteSpace}|%\\}\\n?`, 'y'),
  endOfVariable: new RegExp(`-\\}\\}${whiteSpace}|\\}\\}`, 'y'),
  float: /(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy,
  int: /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy,
  name: /[\p{L}\p{M}\p{N}\p{Pc}\u00b7]+/uy,
  string: /'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"/sy,
  operator: /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y,
};
const closing: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  #counted = 0;

  constructor(source: string) {
    const lines = source.replace(/\r\n?/g, '\n');
    this.#source = lines.endsWith('\n') ? lines.slice(0, -1) : lines;
  }

  run(): Token[] {
    const begin = /\{[%{#]/g;
    while (this.#at < this.#source.length) {
      begin.lastIndex = this.#at;
      const found = begin.exec(this.#source);
      if (found === null) {
        this.#push('data', this.#source.slice(this.#at), this.#at);
        this.#at = this.#source.length;
      } else {
        this.#tag(found[0], found.index);
      }
    }
    this.#push('eof', '', this.#at);
    return this.#tokens;
  }

  /** Text, then the tag at `start`. */
  #tag(mark: string, start: number): void {
    const raw = mark === '{%' ? this.#match(patterns.startOfRaw, start) : null;
    const sign = raw?.[1] ?? /[-+]?/.exec(this.#source.slice(start + 2, start + 3))?.[0] ?? '';
    this.#data(this.#source.slice(this.#at, start), sign, mark !== '{{', this.#at);
    this.#at = start + 2 + sign.length;
    if (raw !== null) this.#raw(start + raw[0].length);
    else if (mark === '{#') this.#comment();
    else this.#code(mark === '{%' ? 'block' : 'variable', start);
  }

  /** Text before a tag, whose sign or place says what white space goes. */
  #data(text: string, sign: string, isBlock: boolean, start: number): void {
    let kept = text;
    if (sign === '-') {
      kept = trimEnd(text);
    } else if (sign === '' && isBlock) {
      const lineStart = text.lastIndexOf('\n') + 1;
      const startsLine = lineStart > 0 || start === 0 || this.#source.charAt(start - 1) === '\n';
      if (startsLine && trimEnd(text.slice(lineStart)) === '') kept = text.slice(0, lineStart);
    }
    if (kept !== '') this.#push('data', kept, start);
  }

  #raw(bodyStart: number): void {
    this.#at = bodyStart;
    if (bodyStart >= this.#source.length) return;
    endOfRaw.lastIndex = bodyStart;
    const end = endOfRaw.exec(this.#source);
    if (end === null) throw this.#error('missing end of raw directive', bodyStart);
    this.#data(this.#source.slice(bodyStart, end.index), end[1] ?? '', true, bodyStart);
    this.#at = end.index + end[0].length;
  }

  #comment(): void {
    if (this.#at >= this.#source.length) return;
    const end = this.#source.indexOf('#}', this.#at);
    if (end < 0) throw this.#error('missing end of comment tag', this.#at);
    const sign = end > this.#at ? this.#source.charAt(end - 1) : '';
    this.#at = end + 2;
    if (sign === '-') this.#at += this.#match(patterns.space, this.#at)?.[0].length ?? 0;
    else if (sign !== '+' && this.#source.charAt(this.#at) === '\n') this.#at++;
  }

  /** The inside of a block or variable tag. */
  #code(kind: 'block' | 'variable', start: number): void {
    this.#push(`${kind}_begin`, '', start);
    const end = kind === 'block' ? patterns.endOfBlock : patterns.endOfVariable;
    const open: string[] = [];
    while (this.#at < this.#source.length) {
      const from = this.#at;
      const ended = open.length === 0 ? this.#match(end, from) : null;
      if (ended !== null) {
        this.#push(`${kind}_end`, '', from);
        this.#at += ended[0].length;
        return;
      }
      this.#codeToken(open);
    }
  }

  #codeToken(open: string[]): void {
    const from = this.#at;
    const take = (pattern: RegExp) => {
      const text = this.#match(pattern, from)?.[0];
      this.#at += text?.length ?? 0;
      return text;
    };
    if (take(patterns.space) !== undefined) return;
    const float = this.#source.charAt(from - 1) === '.' ? undefined : take(patterns.float);
    if (float !== undefined) return this.#push('float', float.replaceAll('_', ''), from);
    const int = take(patterns.int);
    if (int !== undefined) return this.#push('int', int.replaceAll('_', ''), from);
    const name = take(patterns.name);
    if (name !== undefined) {
      if (!/^[\p{ID_Start}_][\p{ID_Continue}]*$/u.test(name)) throw this.#error('invalid character in identifier', from);
      return this.#push('name', name, from);
    }
    const string = take(patterns.string);
    if (string !== undefined) return this.#push('string', readString(string.slice(1, -1), this.#lineOf(from)), from);
    const operator = take(patterns.operator);
    if (operator === undefined) {
      throw this.#error(`unexpected char ${JSON.stringify(String.fromCodePoint(this.#source.codePointAt(from) ?? 0))}`, from);
    }
    this.#balance(operator, open, from);
    this.#push('operator', operator, from);
  }

  #balance(operator: string, open: string[], at: number): void {
    const close = closing[operator];
    if (close !== undefined) open.push(close);
    if (!')]}'.includes(operator)) return;
    const expected = open.pop();
    if (expected === undefined) throw this.#error(`unexpected '${operator}'`, at);
    if (expected !== operator) throw this.#error(`unexpected '${operator}', expected '${expected}'`, at);
  }

  #match(pattern: RegExp, at: number): RegExpExecArray | null {
    pattern.lastIndex = at;
    return pattern.exec(this.#source);
  }

  #push(type: TokenType, value: string, at: number): void {
    this.#tokens.push({ type, value, line: this.#lineOf(at) });
  }

  /** Line of a place; places are asked for in order. */
  #lineOf(at: number): number {
    for (; this.#counted < at; this.#counted++) if (this.#source.charCodeAt(this.#counted) === 10) this.#line++;
    return this.#line;
  }

  #error(message: string, at: number): TemplateError {
    return syntaxError(message, this.#lineOf(at));
  }
}

const spaceUnit = new RegExp(space);

function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && spaceUnit.test(text.charAt(end - 1))) end--;
  return text.slice(0, end);
}

/** @throws TemplateError for characters that are no part of a template. */
export function tokenize(source: string): Token[] {
  return new Lexer(source).run();
}
