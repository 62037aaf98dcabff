/** The transform of logits in plain TypeScript, up to the temperature: written from its definition, in any precision. */
import { at } from './testing.ts';

/** What edits the logits of one row. */
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

/** Edited logits of the row that follows `prompt` and `output`. */
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
