/** The escapes of a string literal, as Python's `unicode-escape` reads them. */
import { syntaxError } from './errors.ts';
import { escapeCode } from './text.ts';

const simple: Readonly<Record<string, string>> = {
  ...{ '\n': '', '\\': '\\', "'": "'", '"': '"', a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' },
};
const sequence = /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|(.))/gsu;

/** @param body - the literal without its quotes. @throws TemplateError for an escape that is cut short. */
export function readString(body: string, line: number): string {
  return body.replace(sequence, (all: string, octal?: string, x?: string, u?: string, U?: string, other = '') => {
    if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
    const hex = x ?? u ?? U;
    if (hex !== undefined) {
      const code = Number.parseInt(hex, 16);
      if (code <= 0x10ffff) return String.fromCodePoint(code);
      throw syntaxError(`illegal Unicode character in a string, ${all}`, line);
    }
    if ('xuU'.includes(other)) throw syntaxError(`truncated escape in a string, ${all}`, line);
    if (other === 'N') throw syntaxError(`a character by its name, which is not supported in a string, ${all}`, line);
    const code = other.codePointAt(0) ?? 0;
    return simple[other] ?? (code > 0x7f ? escapeCode(code) : all);
  });
}
