/** White space and lines as Python has them. */

/** White space of `str.isspace`; JavaScript's has U+FEFF and lacks U+0085 and U+001C … U+001F. */
export const space = String.raw`[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]`;
const isSpace = new RegExp(space);
const gaps = new RegExp(`(?:${space})+`, 'g');
const lineBreaks = String.raw`\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]`;

/** `str.strip`, `lstrip` and `rstrip`: without `chars`, of white space. */
export function strip(text: string, chars: string | null, sides: 'both' | 'left' | 'right' = 'both'): string {
  const set = chars === null ? null : new Set(chars);
  const isStripped = (character: string | undefined) =>
    character !== undefined && (set === null ? isSpace.test(character) : set.has(character));
  const units: ArrayLike<string> = set === null ? text : Array.from(text);
  let [start, end] = [0, units.length];
  if (sides !== 'right') while (start < end && isStripped(units[start])) start++;
  if (sides !== 'left') while (end > start && isStripped(units[end - 1])) end--;
  return typeof units === 'string' ? units.slice(start, end) : Array.from(units).slice(start, end).join('');
}

/** `str.splitlines()`. */
export function splitLines(text: string, keepEnds = false): string[] {
  const lines = text.split(new RegExp(keepEnds ? `(?<=${lineBreaks.replace('\\r\\n|', '')}(?<!\\r(?=\\n)))` : lineBreaks));
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/** `str.split(None, most)`; all words for a negative `most`. */
export function splitWords(text: string, most = -1): string[] {
  const trimmed = strip(text, null, 'left');
  const words: string[] = [];
  let end = 0;
  for (const gap of trimmed.matchAll(gaps)) {
    if (words.length === most) break;
    words.push(trimmed.slice(end, gap.index));
    end = gap.index + gap[0].length;
  }
  return end === trimmed.length ? words : [...words, trimmed.slice(end)];
}

/** `str.rsplit(None, most)`. */
export function splitWordsFromRight(text: string, most: number): string[] {
  const trimmed = strip(text, null, 'right');
  const all = splitWords(trimmed);
  if (most < 0 || all.length <= most) return all;
  const kept = all.slice(all.length - most);
  let end = trimmed.length;
  for (const word of kept.toReversed()) end = strip(trimmed.slice(0, end), null, 'right').length - word.length;
  const rest = strip(trimmed.slice(0, end), null, 'right');
  return rest === '' ? kept : [rest, ...kept];
}
