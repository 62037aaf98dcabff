/** HTML's five escapes, as MarkupSafe writes them. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { toText } from './text.ts';
import { Markup, type Value } from './values.ts';
import { splitWords } from './white-space.ts';

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '>': '&gt;', '<': '&lt;', "'": '&#39;', '"': '&#34;' };
const named = new Map(Object.entries({ amp: '&', gt: '>', lt: '<', quot: '"', apos: "'", nbsp: '\u00a0' }));

export function escapeHtml(text: string): string {
  return text.replace(/[&><'"]/g, (character) => escapes[character] ?? character);
}

/** `markupsafe.escapeValue(value)`: markup stays as it is. */
export function escapeValue(value: Value, budget: Budget): Markup {
  return value instanceof Markup ? value : new Markup(budget.take(escapeHtml(toText(value, budget))));
}

/** The characters of an operand or argument of markup. */
export function escapeOperand(value: Value, budget: Budget): string {
  return escapeValue(value, budget).text;
}

/** `html.unescape`. @throws TemplateError for a named entity that is none of the few known here. */
export function unescapeHtml(text: string): string {
  return text.replace(/&(?:#(x[\da-f]+|\d+);?|([a-z][\da-z]*);?)/gi, (all: string, number?: string, name = '') => {
    if (number === undefined) {
      const character = all.endsWith(';') ? named.get(name) : undefined;
      if (character !== undefined) return character;
      throw new TemplateError(`the HTML entity ${all} is not supported (there are ${[...named.keys()].join(', ')} and numbers)`);
    }
    const code = number[0] === 'x' || number[0] === 'X' ? Number.parseInt(number.slice(1), 16) : Number(number);
    if (code >= 32 && code < 0xd800 && (code < 127 || code > 159)) return String.fromCodePoint(code);
    throw new TemplateError(`the HTML entity ${all} is not supported`);
  });
}

/** `Markup.striptags`: without comments and tags, white space as single spaces, entities decoded. */
export function stripTags(text: string): string {
  let rest = cut(text, '<!--', '-->');
  rest = cut(rest, '<', '>');
  return unescapeHtml(splitWords(rest).join(' '));
}

/** The text without what stands between an `open` and the next `close`. */
function cut(text: string, open: string, close: string): string {
  const kept: string[] = [];
  let at = 0;
  for (;;) {
    const start = text.indexOf(open, at);
    const end = start < 0 ? -1 : text.indexOf(close, start);
    if (end < 0) return kept.join('') + text.slice(at);
    kept.push(text.slice(at, start));
    at = end + close.length;
  }
}
