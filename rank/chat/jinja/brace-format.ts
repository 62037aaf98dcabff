/** `'{} and {name:>5}'.format(values)`, whose fields read attributes and items as the sandbox does. */
import { getAttribute, getItem } from './attributes.ts';
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { formatValue } from './format-spec.ts';
import { escapeHtml } from './html.ts';
import { escapeCode, repr, toText } from './text.ts';
import { type Arguments, Markup, type Value } from './values.ts';

/** A run of one format: fields are numbered or not, but not both. */
class Formatter {
  readonly #args: Arguments;
  readonly #budget: Budget;
  readonly #isMarkup: boolean;
  #next = 0;

  constructor(args: Arguments, isMarkup: boolean, budget: Budget) {
    [this.#args, this.#isMarkup, this.#budget] = [args, isMarkup, budget];
  }

  run(text: string, depth = 2): string {
    if (depth < 0) throw new TemplateError('max recursion of a format exceeded');
    let result = '';
    for (let at = 0; at < text.length; ) {
      const brace = text.slice(at).search(/[{}]/);
      if (brace < 0) return result + text.slice(at);
      result += text.slice(at, at + brace);
      const start = at + brace;
      const mark = text.charAt(start);
      if (text.charAt(start + 1) === mark) {
        result += mark;
        at = start + 2;
      } else {
        if (mark === '}') throw new TemplateError("single '}' encountered in format string");
        const end = endOfField(text, start);
        result += this.#budget.take(this.#field(text.slice(start + 1, end), depth));
        at = end + 1;
      }
    }
    return result;
  }

  #field(field: string, depth: number): string {
    const [, path = '', conversion, spec = ''] = /^((?:[^![:]|\[[^\]]*\])*)(?:!([^:]*))?(?::(.*))?$/s.exec(field) ?? [];
    const value = this.#convert(this.#find(path), conversion);
    const text = formatValue(value, this.run(spec, depth - 1), this.#budget);
    return this.#isMarkup && !(value instanceof Markup) ? escapeHtml(text) : text;
  }

  #find(path: string): Value {
    const [, first = '', rest = ''] = /^([^.[]*)(.*)$/s.exec(path) ?? [];
    let value = this.#first(first, path);
    let at = 0;
    for (const step of rest.matchAll(/\.([^.[]+)|\[([^\]]+)\]/gy)) {
      const [all, attribute, item = ''] = step;
      at = step.index + all.length;
      if (attribute !== undefined) value = getAttribute(value, attribute, this.#budget);
      else value = getItem(value, /^\d+$/.test(item) ? Number(item) : item, this.#budget);
    }
    if (at !== rest.length) throw new TemplateError(`the format field {${path}} cannot be read`);
    return value;
  }

  #first(name: string, path: string): Value {
    const { positional, keywords } = this.#args;
    if (path !== '' && !/^\d+$/.test(name)) {
      if (!keywords.has(name)) throw new TemplateError(`the format has no value named '${name}'`);
      return keywords.get(name);
    }
    if ((name === '' && this.#next < 0) || (name !== '' && this.#next > 0)) {
      throw new TemplateError('cannot switch between numbered and automatic fields of a format');
    }
    const at = name === '' ? this.#next++ : Number(name);
    if (name !== '') this.#next = -1;
    if (at >= positional.length) throw new TemplateError(`the format has no value ${at}`);
    return positional[at];
  }

  #convert(value: Value, conversion: string | undefined): Value {
    switch (conversion) {
      case undefined:
        return value;
      case 's':
        return toText(value, this.#budget);
      case 'r':
        return repr(value, this.#budget);
      case 'a':
        return repr(value, this.#budget).replace(/[^\0-\x7f]/gu, (character) => escapeCode(character.codePointAt(0) ?? 0));
      default:
        throw new TemplateError(`unknown conversion specifier ${conversion}`);
    }
  }
}

function endOfField(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text.charAt(at) === '{') depth++;
    else if (text.charAt(at) === '}' && --depth === 0) return at;
  }
  throw new TemplateError("expected '}' before end of format string");
}

/** `str.format`. */
export function formatBraces(text: string, args: Arguments, isMarkup: boolean, budget: Budget): Value {
  const result = new Formatter(args, isMarkup, budget).run(text);
  return isMarkup ? new Markup(result) : result;
}
