/** The `wordwrap` filter: Python's `textwrap.wrap` of each line. */
import { needInt, needText, optionalText } from '../arguments.ts';
import type { Budget } from '../budget.ts';
import { TemplateError } from '../errors.ts';
import { characters, isTrue, type Value } from '../values.ts';
import { splitLines } from '../white-space.ts';

const wordPunctuation = String.raw`[\p{L}\p{N}_!"'&.,?]`;
const letter = String.raw`\p{L}`;
const hyphen = `-(?:(?<=${letter}{2}-)|(?<=${letter}-${letter}-))(?=${letter}-?${letter})`;
const blank = String.raw`[\t\n\v\f\r ]`;
const notBlank = String.raw`[^\t\n\v\f\r ]`;
/** White space, a dash between words, or a word, maybe up to a hyphen. */
const chunks = new RegExp(
  String.raw`${blank}+|(?<=${wordPunctuation})-{2,}(?=[\p{L}\p{N}_])|${notBlank}+?(?:${hyphen}|(?=${blank}|$)|(?<=${wordPunctuation})(?=-{2,}[\p{L}\p{N}_]))`,
  'gu',
);
const words = new RegExp(`${blank}+|${notBlank}+`, 'g');

/** The arguments are `width`, `break_long_words`, `wrapstring` and `break_on_hyphens`. */
export function wrapText(value: Value, [width, breaksWords, wrapString, breaksHyphens]: readonly Value[], budget: Budget): string {
  const text = needText(value, 'what is wrapped');
  const mark = optionalText(wrapString, 'wrapstring') ?? '\n';
  const most = needInt(width, 'width');
  if (most <= 0 && text !== '') throw new TemplateError(`invalid width ${most} (must be > 0)`);
  budget.step(text.length);
  const wrapLine = (line: string) => {
    const parts = line.match(isTrue(breaksHyphens) ? chunks : words) ?? [];
    return fill(parts, most, isTrue(breaksWords), isTrue(breaksHyphens)).join(mark);
  };
  return budget.take(splitLines(text).map(wrapLine).join(mark));
}

function isBlank(text: string | undefined): boolean {
  return text !== undefined && text.trim() === '';
}

/** Lines of at most `width` characters, which neither start nor end with white space, but for the start of the first. */
function fill(parts: readonly string[], width: number, breaksWords: boolean, breaksHyphens: boolean): string[] {
  const rest = [...parts].reverse();
  const lines: string[] = [];
  while (rest.length > 0) {
    if (lines.length > 0 && isBlank(rest.at(-1))) rest.pop();
    const line: string[] = [];
    let length = 0;
    for (let next = rest.at(-1); next !== undefined && length + characters(next).length <= width; next = rest.at(-1)) {
      length += characters(next).length;
      line.push(next);
      rest.pop();
    }
    const next = rest.at(-1);
    if (next !== undefined && characters(next).length > width) breakWord(next, line, rest, width - length, breaksWords, breaksHyphens);
    if (isBlank(line.at(-1))) line.pop();
    if (line.length > 0) lines.push(line.join(''));
  }
  return lines;
}

function breakWord(word: string, line: string[], rest: string[], room: number, breaksWords: boolean, breaksHyphens: boolean): void {
  if (!breaksWords) {
    if (line.length === 0) line.push(rest.pop() ?? '');
    return;
  }
  const units = Array.from(word);
  let end = room;
  if (breaksHyphens && units.length > end) {
    const at = units.slice(0, end).lastIndexOf('-');
    if (at > 0 && units.slice(0, at).some((unit) => unit !== '-')) end = at + 1;
  }
  line.push(units.slice(0, end).join(''));
  const left = units.slice(end).join('');
  rest.pop();
  if (left !== '') rest.push(left);
}
