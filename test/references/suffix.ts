/** Suffix decoding by scanning whole texts for every occurrence. */

/** Marks the end of a finished text. */
const end = -1;

interface Occurrences {
  /** Number of occurrences before each token, in the order of their latest. */
  next: Map<number, number>;
  total: number;
}

/** The tokens that follow a run in all texts; nothing follows the end of an unfinished text. */
function follow(texts: readonly number[][], run: readonly number[]): Occurrences {
  const next = new Map<number, number>();
  let total = 0;
  for (const text of texts) {
    for (let start = 0; start + run.length < text.length; start++) {
      if (!run.every((tokenId, i) => text[start + i] === tokenId)) continue;
      const tokenId = text[start + run.length] ?? end;
      const count = (next.get(tokenId) ?? 0) + 1;
      next.delete(tokenId);
      next.set(tokenId, count);
      total++;
    }
  }
  return { next, total };
}

/** The most frequent token, the latest of equals, and its share. */
function likeliest({ next, total }: Occurrences): { tokenId: number; share: number } {
  const most = Math.max(...next.values());
  const tokenId = [...next].filter(([, count]) => count === most).at(-1)?.[0] ?? end;
  return { tokenId, share: most / total };
}

/** Length of the longest suffix of `text` below `maxDepth` tokens that is followed by something in the texts. */
export function longestMatch(texts: readonly number[][], text: readonly number[], maxDepth: number): number {
  let length = Math.min(maxDepth - 1, text.length);
  while (length > 0 && follow(texts, text.slice(text.length - length)).total === 0) length--;
  return length;
}

/** The most likely token after the longest match; `null` without a match. */
export function predict(texts: readonly number[][], text: readonly number[], maxDepth: number) {
  const length = longestMatch(texts, text, maxDepth);
  return length === 0 ? null : { length, ...likeliest(follow(texts, text.slice(text.length - length))) };
}

/**
 * The likeliest path after the longest match of `text`, and the share of occurrences of each token. Runs of up to
 * `maxDepth` tokens are counted; past that, and after a single occurrence, the draft copies the text of the latest
 * occurrence.
 */
export function draft(
  texts: readonly number[][],
  text: readonly number[],
  maxDepth: number,
  most: number,
  factor: number,
  minTokenProb: number,
) {
  const length = longestMatch(texts, text, maxDepth);
  const limit = length === 0 ? 0 : Math.min(most, Math.floor(length * factor));
  const run = text.slice(text.length - length);
  const tokenIds: number[] = [];
  const shares: number[] = [];
  let pathProb = 1;
  let copied: { text: readonly number[]; from: number } | null = null;
  while (tokenIds.length < limit) {
    const context = [...run, ...tokenIds];
    const occurrences = follow(texts, context);
    let best = { tokenId: end, share: 1 };
    if (copied === null && context.length < maxDepth && occurrences.total > 0) {
      best = likeliest(occurrences);
    } else {
      copied ??= latest(texts, context.slice(0, maxDepth));
      // Past the end of an unfinished text, the copy continues with the draft itself.
      const { from } = copied;
      best.tokenId = (from < copied.text.length ? copied.text[from] : tokenIds[from - copied.text.length]) ?? end;
      copied.from++;
    }
    pathProb *= best.share;
    if (best.tokenId === end || pathProb < minTokenProb) break;
    tokenIds.push(best.tokenId);
    shares.push(best.share);
  }
  return { length, tokenIds, shares };
}

/** The text of a run's latest occurrence, and the index after it. */
function latest(texts: readonly number[][], run: readonly number[]): { text: readonly number[]; from: number } {
  for (const text of texts.toReversed()) {
    for (let from = text.length; from >= run.length; from--) {
      if (run.every((tokenId, i) => text[from - run.length + i] === tokenId)) return { text, from };
    }
  }
  throw new Error(`no occurrence of ${run}`);
}
