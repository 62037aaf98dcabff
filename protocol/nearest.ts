/** The known name that a mistyped one most likely stands for. */

/** Words whose exchange turns the meaning around, however near the spelling. */
const opposites: readonly (readonly [string, string])[] = [
  ['min', 'max'],
  ['enable', 'disable'],
  ['stdout', 'stderr'],
  ['input', 'output'],
];
/** A beginning of a name counts from this length on. */
const minPrefixLength = 3;

/**
 * The candidate that begins with `name`, else the one with the smallest edit distance; null where that is more than one
 * edit per four characters, or the words differ in meaning: `top-k` is no `top-p`, and `min-len` no `max-len`.
 * Case and separators do not count.
 */
export function nearest(name: string, candidates: readonly string[]): string | null {
  const words = wordsOf(name);
  const text = words.join('-');
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const otherWords = wordsOf(candidate);
    const other = otherWords.join('-');
    const isPrefix = text.length >= minPrefixLength && other.startsWith(text);
    const distance = isPrefix ? (other.length - text.length) / 100 : editDistance(text, other);
    const longest = Math.max(text.length, other.length);
    const isNear = isPrefix || (longest >= minPrefixLength && distance <= Math.max(1, Math.floor(longest / 4)));
    if (isNear && distance < bestDistance && !differInMeaning(words, otherWords)) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** `--max_tokens` and `maxTokens` → max, tokens. */
function wordsOf(name: string): string[] {
  return name
    .replace(/([a-z\d])([A-Z])/g, '$1-$2')
    .toLowerCase()
    .split(/[-_\s]+/)
    .filter((word) => word !== '');
}

function differInMeaning(a: readonly string[], b: readonly string[]): boolean {
  if ((a[0] === 'no') !== (b[0] === 'no')) return true;
  if (opposites.some(([x, y]) => (a.includes(x) && b.includes(y)) || (a.includes(y) && b.includes(x)))) return true;
  // A word of one letter is a name, as k in top-k.
  return a.length === b.length && a.some((word, i) => word.length === 1 && b[i]?.length === 1 && word !== b[i]);
}

/** Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal string alignment). */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const [above, twoAbove] = [rows[i - 1] ?? [], rows[i - 2] ?? []];
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (above[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = isSwap ? (twoAbove[j - 2] ?? Number.POSITIVE_INFINITY) + 1 : Number.POSITIVE_INFINITY;
      row.push(Math.min(substitution, swap, (above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? a.length;
}
