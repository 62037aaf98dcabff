/** Upper and lower case, and kinds of characters, as Python's str has them. */
import { space } from './white-space.ts';

/** `str.title()`: a letter that follows no letter starts a word. */
export function titleCase(text: string): string {
  return text.replace(/\p{Cased}+/gu, capitalize);
}

/** `str.capitalize()`. */
export function capitalize(text: string): string {
  const [first = ''] = Array.from(text);
  return titleLetter(first) + text.slice(first.length).toLowerCase();
}

/** A letter in title case: of a ligature, only the first letter is large. */
function titleLetter(letter: string): string {
  const upper = letter.toUpperCase();
  const [head = '', ...rest] = Array.from(upper);
  if (rest.length > 0 && head !== 'ʼ') return head + rest.join('').toLowerCase();
  return { Ǆ: 'ǅ', Ǉ: 'ǈ', Ǌ: 'ǋ', Ǳ: 'ǲ' }[upper] ?? upper;
}

/** `str.swapcase()`. */
export function swapCase(text: string): string {
  return text.replace(/[\p{Lu}\p{Ll}]/gu, (letter) => (/\p{Lu}/u.test(letter) ? letter.toLowerCase() : letter.toUpperCase()));
}

/** `str.isupper()`: at least one cased letter, and none that is not upper case. */
export function isUpper(text: string): boolean {
  return /\p{Uppercase}/u.test(text) && !/\p{Lowercase}|\p{Lt}/u.test(text);
}

/** `str.islower()`. */
export function isLower(text: string): boolean {
  return /\p{Lowercase}/u.test(text) && !/\p{Uppercase}|\p{Lt}/u.test(text);
}

/** `str.istitle()`. */
export function isTitle(text: string): boolean {
  return /\p{Cased}/u.test(text) && !/(?<!\p{Cased})\p{Lowercase}|(?<=\p{Cased})[\p{Uppercase}\p{Lt}]/u.test(text);
}

const categories = {
  decimal: /^\p{Nd}+$/u,
  digit:
    /^[\p{Nd}\u00b2\u00b3\u00b9\u1369-\u1371\u19da\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u2474-\u247c\u2488-\u2490\u24ea\u24f5-\u24fd\u24ff\u2776-\u277e\u2780-\u2788\u278a-\u2792]+$/u,
  numeric:
    /^[\p{N}\u3405\u3483\u4e00\u4e03\u4e07\u4e09\u4e5d\u4e8c\u4e94\u4ebf\u4edf\u5104\u5146\u516b\u516d\u5341\u5343\u56db\u5eff\u767e\u96f6]+$/u,
  alpha: /^\p{L}+$/u,
  alnum: /^[\p{L}\p{N}]+$/u,
  space: new RegExp(`^${space}+$`),
  printable: /^(?:[^\p{C}\p{Z}]| )*$/u,
  identifier: /^[\p{ID_Start}_][\p{ID_Continue}]*$/u,
  ascii: /^[\0-\x7f]*$/,
};

/** `str.isdigit()` and its kin. */
export function isCategory(text: string, category: keyof typeof categories): boolean {
  return categories[category].test(text);
}
