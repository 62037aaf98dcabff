/** Validates sampling parameters that name tokens against the model. */

import { refuse } from './sampling-checks.ts';
import type { ResolvedSamplingParams } from './sampling-params.ts';

/** Tokens of a model that can be drawn, and those that may be barred. */
export interface DrawableTokens {
  /** Ids below this can be drawn; the model's own vocabulary may be padded beyond. */
  readonly vocabSize: number;
  /** End-of-sequence tokens, which `minTokens` bars along with `stopTokenIds`. */
  readonly eosTokenIds: readonly number[];
  /** Bad words as `badWordTokens` returns them. */
  readonly badWords: readonly (readonly number[])[];
}

/**
 * Checks that the model has the tokens that the parameters name, and that every step leaves one to draw. A bad word may
 * bar its last token at any step, and `minTokens` the tokens that end a text; penalties and biases bar none.
 *
 * @throws NdsError `ERR_REQUEST` naming the parameter and the token.
 */
export function checkAgainstModel(
  params: Pick<ResolvedSamplingParams, 'logitBias' | 'allowedTokenIds' | 'stopTokenIds' | 'minTokens'>,
  { vocabSize, eosTokenIds, badWords }: DrawableTokens,
): void {
  const { logitBias, allowedTokenIds, stopTokenIds, minTokens } = params;
  const lists = { logitBias: logitBias.map(([id]) => id), allowedTokenIds: allowedTokenIds ?? [], stopTokenIds };
  for (const [name, ids] of Object.entries(lists)) {
    const wrong = ids.find((id) => id >= vocabSize);
    if (wrong !== undefined) throw refuse(name, `token ids from 0 to ${vocabSize - 1}`, wrong);
  }
  const barred = new Set<number>(minTokens > 0 ? [...stopTokenIds, ...eosTokenIds] : []);
  for (const word of badWords) barred.add(word.at(-1) as number);
  const isBarred = (id: number) => barred.has(id);
  if (allowedTokenIds === null ? [...barred].filter((id) => id < vocabSize).length === vocabSize : allowedTokenIds.every(isBarred)) {
    throw refuse('allowedTokenIds', 'a token that neither badWords nor minTokens may bar', allowedTokenIds ?? undefined);
  }
}

/**
 * Tokens of bad words, each with and without a space before it, which most tokenizers encode differently.
 *
 * @param encode - text to tokens, without the special ones around it
 * @throws NdsError `ERR_REQUEST` for a word that encodes to no token.
 */
export function badWordTokens(words: readonly string[], encode: (text: string) => readonly number[]): number[][] {
  const all = words.flatMap((word) => {
    const bare = word.trimStart();
    return [bare, ` ${bare}`].map((text) => {
      const tokens = [...encode(text)];
      if (tokens.length === 0) throw refuse('badWords', 'words of at least one token', word);
      return tokens;
    });
  });
  return [...new Map(all.map((tokens) => [tokens.join(), tokens])).values()];
}
