/** The `urlize` filter: links and mail addresses of a text as HTML. */
import { needText, optionalInt, optionalText } from '../arguments.ts';
import type { Budget } from '../budget.ts';
import { TemplateError } from '../errors.ts';
import { escapeHtml, escapeValue } from '../html.ts';
import { iterate } from '../iterables.ts';
import { characters, isTrue, type Value } from '../values.ts';
import { space, splitWords } from '../white-space.ts';
import { filter } from './filter.ts';

const word = String.raw`[\p{L}\p{N}_]`;
const link = new RegExp(
  String.raw`^(?:(?:https?://|www\.)(?:(?:(?:${word}|[%-])+\.)+)?(?:[a-z]{2,63}|xn--(?:${word}|%){2,59})` +
    String.raw`|(?:(?:${word}|[%-]){2,63}\.)+(?:com|net|int|edu|gov|org|info|mil)` +
    String.raw`|https?://(?:\d{1,3}(?:\.\d{1,3}){3}|\[(?:[\da-f]{0,4}:){2}(?:[\da-f]{0,4}:?){1,6}\]))(?::\d{1,5})?(?:[/?#]\S*)?$`,
  'iu',
);
const mail = new RegExp(String.raw`^\S+@${word}(?:${word}|[.-])*\.${word}+$`, 'u');
const brackets = [
  ['(', ')'],
  ['<', '>'],
  ['&lt;', '&gt;'],
] as const;

interface Attributes {
  readonly limit: number | null;
  /** ` rel="…"` and ` target="…"`. */
  readonly text: string;
  readonly schemes: readonly string[];
}

function count(text: string, part: string): number {
  return text.split(part).length - 1;
}

/** What is no part of a link before and after it. */
function cutAffixes(text: string): [head: string, middle: string, tail: string] {
  const head = /^(?:[(<]|&lt;)+/.exec(text)?.[0] ?? '';
  let middle = text.slice(head.length);
  let tail = '';
  const isCut = ['(', ')', '>', '.', ',', '\n', '&gt;'].slice(1).some((end) => middle.endsWith(end));
  if (isCut) {
    tail = /(?:[)>.,\n]|&gt;)+$/.exec(middle)?.[0] ?? '';
    middle = middle.slice(0, middle.length - tail.length);
  }
  for (const [open, close] of brackets) {
    const numOpen = count(middle, open);
    if (numOpen <= count(middle, close)) continue;
    for (let i = Math.min(numOpen, count(tail, close)); i > 0; i--) {
      const end = tail.indexOf(close) + close.length;
      middle += tail.slice(0, end);
      tail = tail.slice(end);
    }
  }
  return [head, middle, tail];
}

function linked(text: string, { limit, text: attributes, schemes }: Attributes): string {
  const shown = limit === null || characters(text).length <= limit ? text : `${Array.from(text).slice(0, limit).join('')}...`;
  if (link.test(text)) return `<a href="${/^https?:\/\//.test(text) ? '' : 'https://'}${text}"${attributes}>${shown}</a>`;
  if (text.startsWith('mailto:') && mail.test(text.slice(7))) return `<a href="${text}">${text.slice(7)}</a>`;
  if (!text.startsWith('www.') && !text.startsWith('@') && !text.includes(':') && mail.test(text))
    return `<a href="mailto:${text}">${text}</a>`;
  let result = text;
  for (const scheme of schemes)
    if (result !== scheme && result.startsWith(scheme)) result = `<a href="${result}"${attributes}>${result}</a>`;
  return result;
}

function run(value: Value, [limit, nofollow, target, rel, extra]: readonly Value[], budget: Budget): string {
  const relations = new Set(['noopener', ...splitWords(optionalText(rel, 'rel') ?? ''), ...(isTrue(nofollow) ? ['nofollow'] : [])]);
  const schemes = extra === null ? [] : Array.from(iterate(extra), (scheme) => needText(scheme, 'a scheme'));
  const wrong = schemes.find((scheme) => !/^[\w.+-]{2,}:\/{0,2}$/.test(scheme));
  if (wrong !== undefined) throw new TemplateError(`'${wrong}' is not a valid URI scheme prefix`);
  const frame = optionalText(target, 'target');
  const attributes = {
    limit: limit === null ? null : optionalInt(limit, 0, 'trim_url_limit'),
    text: ` rel="${escapeHtml([...relations].sort().join(' '))}"${frame ? ` target="${escapeHtml(frame)}"` : ''}`,
    schemes,
  };
  const words = escapeValue(value, budget).text.split(new RegExp(`((?:${space})+)`));
  const links = words.map((one) => {
    const [head, middle, tail] = cutAffixes(one);
    return head + linked(middle, attributes) + tail;
  });
  return links.join('');
}

export const urlize = filter(run, [], { trim_url_limit: null, nofollow: false, target: null, rel: null, extra_schemes: null });
