/** What Python's str methods make of a text. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { characters, Tuple } from './values.ts';
import { splitWords, splitWordsFromRight } from './white-space.ts';

/** `str.replace(old, new, count)`; a negative count replaces all. */
export function replace(text: string, from: string, to: string, count: number, budget: Budget): string {
  if (from === '') {
    const units = Array.from(text);
    const numPlaces = count < 0 ? units.length + 1 : Math.min(count, units.length + 1);
    budget.reserve(text.length + numPlaces * to.length);
    return [...units, ''].map((unit, i) => (i < numPlaces ? to : '') + unit).join('');
  }
  const parts = text.split(from);
  const numReplaced = count < 0 ? parts.length - 1 : Math.min(count, parts.length - 1);
  budget.reserve(text.length + numReplaced * to.length);
  return [parts.slice(0, numReplaced + 1).join(to), ...parts.slice(numReplaced + 1)].join(from);
}

/** `str.split`; null splits at white space. */
export function split(text: string, separator: string | null, most: number): string[] {
  if (separator === null) return splitWords(text, most);
  if (separator === '') throw new TemplateError('empty separator');
  const parts = text.split(separator);
  return most < 0 || parts.length <= most ? parts : [...parts.slice(0, most), parts.slice(most).join(separator)];
}

/** `str.rsplit`. */
export function splitFromRight(text: string, separator: string | null, most: number): string[] {
  if (separator === null) return splitWordsFromRight(text, most);
  if (separator === '') throw new TemplateError('empty separator');
  const parts: string[] = [];
  let end = text.length;
  while (most < 0 || parts.length < most) {
    const at = end < separator.length ? -1 : text.lastIndexOf(separator, end - separator.length);
    if (at < 0) break;
    parts.push(text.slice(at + separator.length, end));
    end = at;
  }
  return [text.slice(0, end), ...parts.reverse()];
}

/** `str.partition` and `rpartition`. */
export function partition(text: string, mark: string, side: 'left' | 'right'): Tuple {
  if (mark === '') throw new TemplateError('empty separator');
  const at = side === 'left' ? text.indexOf(mark) : text.lastIndexOf(mark);
  if (at < 0) return (side === 'left' ? Tuple.of(text, '', '') : Tuple.of('', '', text)) as Tuple;
  return Tuple.of(text.slice(0, at), mark, text.slice(at + mark.length)) as Tuple;
}

export type Justification = 'left' | 'right' | 'center';

/** `str.ljust`, `rjust` and `center`, with `unit` as fill character. */
export function justify(text: string, width: number, unit: string, side: Justification, budget: Budget): string {
  const padding = width - characters(text).length;
  if (padding <= 0) return text;
  budget.reserve(text.length + padding * unit.length);
  if (side === 'left') return text + unit.repeat(padding);
  if (side === 'right') return unit.repeat(padding) + text;
  const left = (padding >> 1) + (padding & width & 1);
  return unit.repeat(left) + text + unit.repeat(padding - left);
}
