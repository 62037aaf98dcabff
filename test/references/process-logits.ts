/** The transform of logits up to the temperature, in plain TypeScript and in any precision, from its definition. */
import { at } from '../helpers/testing.ts';

/** Edits of one row of logits. */
export interface Edits {
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number;
  readonly minTokens: number;
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[];
  /** Null = all. */
  readonly allowedTokenIds: readonly number[] | null;
  readonly stopTokenIds: readonly number[];
  readonly badWords: readonly (readonly number[])[];
}

export const noEdits: Edits = {
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  minTokens: 0,
  logitBias: [],
  allowedTokenIds: null,
  stopTokenIds: [],
  badWords: [],
};

/** Rounding after each operation: none, or to single precision. */
export type Round = (value: number) => number;

export const exact: Round = (value) => value;

/** The edited logits of the row after `prompt` and `output`. */
export function processed(
  logits: ArrayLike<number>,
  edits: Edits,
  prompt: readonly number[],
  output: readonly number[],
  round: Round,
): number[] {
  const row = Array.from(logits);
  const barred = new Set<number>();
  const { allowedTokenIds } = edits;
  if (allowedTokenIds !== null) row.forEach((_, id) => allowedTokenIds.includes(id) || barred.add(id));
  for (const word of edits.badWords) {
    const begun = word.slice(0, -1);
    if (begun.length <= output.length && begun.every((token, i) => token === output[output.length - begun.length + i]))
      barred.add(at(word, word.length - 1));
  }
  const repetition = round(edits.repetitionPenalty);
  for (const token of new Set([...prompt, ...output])) {
    const logit = at(row, token);
    row[token] = round(logit > 0 ? logit / repetition : logit * repetition);
  }
  for (const token of new Set(output)) {
    const count = output.filter((other) => other === token).length;
    const afterFrequency = round(at(row, token) - round(round(edits.frequencyPenalty) * count));
    row[token] = round(afterFrequency - round(edits.presencePenalty));
  }
  for (const [token, bias] of edits.logitBias) row[token] = round(at(row, token) + round(bias));
  if (output.length < edits.minTokens) for (const token of edits.stopTokenIds) barred.add(token);
  for (const id of barred) row[id] = Number.NEGATIVE_INFINITY;
  return row;
}

export interface Filters {
  readonly temperature: number;
  /** 0 = all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

/** Probabilities in float64 after temperature, top-k, top-p and min-p, each applied to what the previous one kept. */
export function distribution(logits: readonly number[], { temperature, topK, topP, minP }: Filters): number[] {
  const largest = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp((logit - largest) / temperature));
  const order = weights.map((_, id) => id).sort((a, b) => at(weights, b) - at(weights, a) || a - b);
  let kept = topK > 0 ? order.slice(0, topK) : order;
  const total = kept.reduce((sum, id) => sum + at(weights, id), 0);
  let before = 0;
  kept = kept.filter((id) => {
    const isNeeded = topP === 1 || before < topP * total;
    before += at(weights, id);
    return isNeeded;
  });
  kept = kept.filter((id) => at(weights, id) >= minP);
  const mass = kept.reduce((sum, id) => sum + at(weights, id), 0);
  return weights.map((weight, id) => (kept.includes(id) ? weight / mass : 0));
}

/**
 * Pearson's statistic of draws against probabilities ÷ its limit, which chance exceeds once in ten thousand times, or
 * at the normal quantile `z`: correct draws yield less than 1. Cells with fewer than five expected draws are merged; an
 * impossible draw yields infinity.
 */
export function misfit(draws: readonly number[], probabilities: readonly number[], z = 3.719): number {
  const counts = probabilities.map(() => 0);
  for (const draw of draws) counts[draw] = at(counts, draw) + 1;
  const cells: { count: number; expected: number }[] = [];
  const rare = { count: 0, expected: 0 };
  for (const [i, p] of probabilities.entries()) {
    const expected = p * draws.length;
    const count = at(counts, i);
    if (p === 0 && count > 0) return Number.POSITIVE_INFINITY;
    if (expected >= 5) cells.push({ count, expected });
    else {
      rare.count += count;
      rare.expected += expected;
    }
  }
  if (rare.expected > 0) cells.push(rare);
  const statistic = cells.reduce((sum, { count, expected }) => sum + (count - expected) ** 2 / expected, 0);
  // Wilson and Hilferty's approximation of the quantile. One cell alone always fits.
  const spread = 2 / (9 * Math.max(1, cells.length - 1));
  const limit = Math.max(1, cells.length - 1) * (1 - spread + z * Math.sqrt(spread)) ** 3;
  return statistic / limit;
}
